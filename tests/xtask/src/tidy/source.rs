//! The rules about what is in a source file.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Problem;

/// The most lines of a file outside its tests.
const FILE_LINES: usize = 400;
/// The most lines of a function.
const FUNCTION_LINES: usize = 60;

/// Where the machine's architecture may be asked for.
const KNOWS_ARCHITECTURE: [&str; 2] = ["vmm/hypervisor", "guests/init"];

/// A source file, read.
pub struct Source {
    path: PathBuf,
    text: String,
    tokens: TokenStream,
    tree: Tree,
}

/// What the rules ask of a file's syntax tree.
#[derive(Default)]
struct Tree {
    /// Lines that exist for tests only.
    tests: Vec<RangeInclusive<usize>>,
    /// Modules in files of their own that exist for tests only: their names, or the files that `#[path]` gives.
    test_modules: Vec<TestModule>,
    /// Functions: name, first line, number of lines.
    functions: Vec<(String, usize, usize)>,
}

enum TestModule {
    Named(String),
    At(String),
}

impl Source {
    /// Reads a file's text.
    pub fn parse(path: PathBuf, text: String) -> syn::Result<Self> {
        let tokens: TokenStream = text.parse()?;
        let mut tree = Tree::default();
        tree.visit_file(&syn::parse_file(&text)?);
        Ok(Self {
            path,
            text,
            tokens,
            tree,
        })
    }

    /// The modules in files of their own that this file has for its tests: paths without ending.
    pub fn modules_for_tests(&self) -> Vec<PathBuf> {
        let stem = self.path.file_stem().unwrap_or_default();
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let is_root = ["lib", "main", "mod"].iter().any(|name| stem == *name);
        let below = if is_root {
            folder.to_owned()
        } else {
            folder.join(stem)
        };
        let place = |module: &TestModule| match module {
            TestModule::Named(name) => below.join(name),
            TestModule::At(path) => folder.join(path).with_extension(""),
        };
        self.tree.test_modules.iter().map(place).collect()
    }

    /// Checks the file, where `tests` are the test modules of the project.
    pub fn check(&self, tests: &[PathBuf]) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.text.starts_with("//!") {
            problems.push(self.problem(
                1,
                "the file does not open with a `//!` that says what it is for".to_owned(),
            ));
        }
        let mut found = Found::default();
        found.walk(self.tokens.clone());
        if !KNOWS_ARCHITECTURE
            .iter()
            .any(|folder| self.path.starts_with(folder))
        {
            problems.extend(
                found
                    .architecture
                    .iter()
                    .map(|line| self.problem(*line, about_architecture())),
            );
        }
        if !self.is_test_file(tests) {
            problems.extend(self.check_sizes());
            let unwraps = found.unwraps.iter().filter(|line| !self.is_test_line(**line));
            let text = "`unwrap` outside tests: return the error, or `expect` with why it cannot fail";
            problems.extend(unwraps.map(|line| self.problem(*line, text.to_owned())));
        }
        problems
    }

    fn check_sizes(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let lines = (1..=self.text.lines().count())
            .filter(|line| !self.is_test_line(*line))
            .count();
        if lines > FILE_LINES {
            let text = format!("{lines} lines outside tests; {FILE_LINES} is the most a file may have");
            problems.push(self.problem(1, text));
        }
        for (name, first, lines) in &self.tree.functions {
            if *lines > FUNCTION_LINES && !self.is_test_line(*first) {
                let text =
                    format!("`{name}` has {lines} lines; {FUNCTION_LINES} is the most a function may have");
                problems.push(self.problem(*first, text));
            }
        }
        problems
    }

    /// A file of a crate's folder `tests` or `benches`, a file `tests.rs`, or one that a `#[cfg(test)]` module lies in.
    fn is_test_file(&self, tests: &[PathBuf]) -> bool {
        let plain = self.path.with_extension("");
        let in_folder = plain
            .components()
            .skip(1)
            .any(|part| ["tests", "benches"].iter().any(|name| part.as_os_str() == *name));
        in_folder || tests.iter().any(|module| plain.starts_with(module))
    }

    fn is_test_line(&self, line: usize) -> bool {
        self.tree.tests.iter().any(|range| range.contains(&line))
    }

    fn problem(&self, line: usize, text: String) -> Problem {
        Problem::new(&self.path, line, text)
    }
}

/// Checks a `Cargo.toml`.
pub fn check_manifest(path: &Path, text: &str) -> Vec<Problem> {
    if KNOWS_ARCHITECTURE.iter().any(|folder| path.starts_with(folder)) {
        return Vec::new();
    }
    let asking = (1..)
        .zip(text.lines())
        .filter(|(_, line)| line.contains("target_arch"));
    asking
        .map(|(line, _)| Problem::new(path, line, about_architecture()))
        .collect()
}

fn about_architecture() -> String {
    format!(
        "`target_arch` belongs in {} only",
        KNOWS_ARCHITECTURE.join(" and ")
    )
}

/// Lines with words that matter, macros' arguments included.
#[derive(Default)]
struct Found {
    unwraps: Vec<usize>,
    architecture: Vec<usize>,
}

impl Found {
    fn walk(&mut self, tokens: TokenStream) {
        let mut after_dot = false;
        for token in tokens {
            let line = token.span().start().line;
            let was_dot = after_dot;
            after_dot = matches!(&token, TokenTree::Punct(mark) if mark.as_char() == '.');
            match token {
                TokenTree::Group(group) => self.walk(group.stream()),
                TokenTree::Ident(word) if word == "target_arch" => self.architecture.push(line),
                TokenTree::Ident(word) if was_dot && word == "unwrap" => self.unwraps.push(line),
                _ => {}
            }
        }
    }
}

impl Tree {
    fn note_function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.span().start().line;
        let last = body.span().end().line;
        self.functions
            .push((signature.ident.to_string(), first, last + 1 - first));
    }
}

impl<'a> Visit<'a> for Tree {
    fn visit_item(&mut self, item: &'a syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if attributes.iter().any(is_for_tests) {
            let span = item.span();
            self.tests.push(span.start().line..=span.end().line);
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
            {
                self.test_modules.push(test_module(module));
            }
        }
        visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
        self.note_function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        if function.attrs.iter().any(is_for_tests) {
            let span = function.span();
            self.tests.push(span.start().line..=span.end().line);
        }
        self.note_function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'a syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.note_function(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

/// Where a module without a body is, as its `#[path]` or its name says.
fn test_module(module: &syn::ItemMod) -> TestModule {
    let path = module.attrs.iter().find_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit {
                lit: syn::Lit::Str(path),
                ..
            }) => Some(path.value()),
            _ => None,
        },
        _ => None,
    });
    path.map_or_else(|| TestModule::Named(module.ident.to_string()), TestModule::At)
}

/// `#[cfg(test)]`, or a `cfg` that needs `test` among other things.
fn is_for_tests(attribute: &syn::Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else {
        return false;
    };
    if !list.path.is_ident("cfg") {
        return false;
    }
    let asks: String = list.tokens.to_string().split_whitespace().collect();
    asks == "test" || asks.starts_with("all(test,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_at(path: &str, text: &str) -> Vec<(usize, String)> {
        let source = Source::parse(PathBuf::from(path), text.to_owned()).unwrap();
        source
            .check(&[])
            .into_iter()
            .map(|problem| (problem.line, problem.text))
            .collect()
    }

    const NOWHERE: [usize; 0] = [];

    fn lines_at(path: &str, text: &str) -> Vec<usize> {
        problems_at(path, text)
            .into_iter()
            .map(|(line, _)| line)
            .collect()
    }

    #[test]
    fn a_file_opens_with_what_it_is_for() {
        assert_eq!(lines_at("vmm/a.rs", "//! Why.\nfn f() {}\n"), NOWHERE);
        assert_eq!(lines_at("vmm/a.rs", "// Not that.\n//! Why.\n"), [1]);
    }

    #[test]
    fn an_unwrap_is_found_in_code_and_in_macros_but_not_in_tests_or_words() {
        let text = "//! x\nfn f() {\n  g().unwrap();\n  h!(g()\n    .unwrap());\n  // .unwrap()\n  \".unwrap()\";\n}\n\
                    #[cfg(test)]\nmod tests {\n  fn t() { g().unwrap(); }\n}\n";
        assert_eq!(lines_at("vmm/a.rs", text), [3, 5]);
        assert_eq!(lines_at("vmm/x/tests/a.rs", text), NOWHERE);
        assert_eq!(lines_at("vmm/x/src/tests.rs", text), NOWHERE);
    }

    #[test]
    fn the_top_folder_called_tests_is_code_like_any_other() {
        assert_eq!(
            lines_at("tests/outer/src/lab.rs", "//! x\nfn f() { g().unwrap(); }\n"),
            [2]
        );
        assert_eq!(
            lines_at("tests/outer/tests/lab.rs", "//! x\nfn f() { g().unwrap(); }\n"),
            NOWHERE
        );
    }

    #[test]
    fn the_architecture_is_asked_for_in_one_place_and_in_no_test_elsewhere() {
        let text = "//! x\n#[cfg(target_arch = \"riscv64\")]\nfn f() {}\nfn g() { cfg!(target_arch = \"x86_64\"); }\n";
        assert_eq!(lines_at("vmm/machine/src/a.rs", text), [2, 4]);
        assert_eq!(lines_at("vmm/machine/tests/a.rs", text), [2, 4]);
        assert_eq!(lines_at("vmm/hypervisor/src/a.rs", text), NOWHERE);
        assert_eq!(lines_at("guests/init/src/a.rs", text), NOWHERE);
    }

    #[test]
    fn a_function_of_sixty_lines_is_the_longest() {
        let function = |lines: usize| format!("//! x\nfn f() {{\n{}}}\n", "g();\n".repeat(lines - 2));
        assert_eq!(problems_at("vmm/a.rs", &function(60)), []);
        let text = "`f` has 61 lines; 60 is the most a function may have".to_owned();
        assert_eq!(problems_at("vmm/a.rs", &function(61)), [(2, text)]);
    }

    #[test]
    fn a_file_of_four_hundred_lines_besides_its_tests_is_the_longest() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// x\n".repeat(500));
        let file = |lines: usize| format!("//! x\n{}{tests}", "// x\n".repeat(lines - 1));
        assert_eq!(problems_at("vmm/a.rs", &file(400)), []);
        let text = "401 lines outside tests; 400 is the most a file may have".to_owned();
        assert_eq!(problems_at("vmm/a.rs", &file(401)), [(1, text)]);
    }

    #[test]
    fn modules_for_tests_lie_beside_a_root_and_below_any_other_file() {
        let modules = |path: &str| {
            Source::parse(
                PathBuf::from(path),
                "//! x\n#[cfg(test)]\nmod driver;\n".to_owned(),
            )
            .unwrap()
            .modules_for_tests()
        };
        assert_eq!(modules("vmm/src/lib.rs"), [PathBuf::from("vmm/src/driver")]);
        assert_eq!(
            modules("vmm/src/queue.rs"),
            [PathBuf::from("vmm/src/queue/driver")]
        );
    }
}
