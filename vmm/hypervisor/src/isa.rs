//! The ISA extensions that KVM can give to a guest: one table, in the canonical order of ISA strings.
//!
//! Order: single letters as in the unprivileged specification's naming chapter, then `Z…` by their second letter's
//! category, then `S…`. The numbers are `KVM_RISCV_ISA_EXT_*` of Linux's uapi; KVM answers `ENOENT` for those that it
//! is too old to know.

use crate::HypervisorError;

/// An extension by its two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    /// Lower case, as in a device tree.
    pub name: &'static str,
    /// The index of its one-reg.
    pub kvm_id: u32,
}

/// All known extensions, in canonical order.
#[rustfmt::skip]
pub const EXTENSIONS: &[Extension] = &[
    ext("i", 5), ext("m", 6), ext("a", 0), ext("f", 3), ext("d", 2), ext("c", 1), ext("v", 15), ext("h", 4),
    ext("zicbom", 11), ext("zicbop", 71), ext("zicboz", 12), ext("ziccrse", 68), ext("zicntr", 19),
    ext("zicond", 24), ext("zicsr", 20), ext("zifencei", 21), ext("zihintntl", 48), ext("zihintpause", 10),
    ext("zihpm", 22), ext("zimop", 55), ext("zaamo", 69), ext("zabha", 67), ext("zacas", 53), ext("zalrsc", 70),
    ext("zawrs", 61), ext("zfa", 51), ext("zfbfmin", 72), ext("zfh", 46), ext("zfhmin", 47), ext("zca", 56),
    ext("zcb", 57), ext("zcd", 58), ext("zcf", 59), ext("zcmop", 60), ext("zba", 17), ext("zbb", 13),
    ext("zbc", 25), ext("zbkb", 26), ext("zbkc", 27), ext("zbkx", 28), ext("zbs", 18), ext("zvbb", 36),
    ext("zvbc", 37), ext("zvfbfmin", 73), ext("zvfbfwma", 74), ext("zvfh", 49), ext("zvfhmin", 50), ext("zvkb", 38),
    ext("zvkg", 39), ext("zvkned", 40), ext("zvknha", 41), ext("zvknhb", 42), ext("zvksed", 43), ext("zvksh", 44),
    ext("zvkt", 45), ext("zknd", 29), ext("zkne", 30), ext("zknh", 31), ext("zkr", 32), ext("zksed", 33),
    ext("zksh", 34), ext("zkt", 35), ext("ztso", 52), ext("smnpm", 62), ext("smstateen", 23), ext("ssaia", 14),
    ext("sscofpmf", 54), ext("ssnpm", 63), ext("sstc", 8), ext("svade", 64), ext("svadu", 65), ext("svinval", 9),
    ext("svnapot", 16), ext("svpbmt", 7), ext("svvptc", 66),
];

const fn ext(name: &'static str, kvm_id: u32) -> Extension {
    Extension { name, kvm_id }
}

/// The extension of this name.
///
/// # Errors
/// [`HypervisorError::UnknownExtension`].
pub fn find(name: &str) -> Result<Extension, HypervisorError> {
    let found = EXTENSIONS.iter().find(|ext| ext.name == name).copied();
    found.ok_or_else(|| HypervisorError::UnknownExtension(name.to_owned()))
}

/// The device tree's `riscv,isa`: `rv64`, the single letters, then the others joined by `_`.
pub fn isa_string(extensions: &[&str]) -> String {
    let mut text = String::from("rv64");
    for letter in extensions.iter().filter(|name| name.len() == 1) {
        text.push_str(letter);
    }
    for name in extensions.iter().filter(|name| name.len() > 1) {
        text.push('_');
        text.push_str(name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_numbers_are_unique() {
        let names: BTreeSet<_> = EXTENSIONS.iter().map(|ext| ext.name).collect();
        let ids: BTreeSet<_> = EXTENSIONS.iter().map(|ext| ext.kvm_id).collect();
        assert_eq!((names.len(), ids.len()), (EXTENSIONS.len(), EXTENSIONS.len()));
    }

    #[test]
    fn an_extension_is_found_by_its_name_and_others_are_refused_by_theirs() {
        assert_eq!(find("zbb").unwrap().kvm_id, 13);
        let refused = find("zbd").unwrap_err().to_string();
        assert!(
            refused.starts_with("ISA extension 'zbd' is not known"),
            "{refused}"
        );
    }

    #[test]
    fn the_isa_string_is_written_as_linux_reads_it() {
        assert_eq!(
            isa_string(&["i", "m", "a", "f", "d", "c", "zicsr", "zba", "sstc"]),
            "rv64imafdc_zicsr_zba_sstc"
        );
    }
}
