//! The image that is pulled and unpacked: five layers with the sizes and kinds of files that a distribution's packages have,
//! made from a seed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use rvm_guests::Cache;
use rvm_guests::oci::{self, About, Layer};

/// Changes with what is made.
const RECIPE: &str = "bench-image 1";

/// The image's name in its layout.
pub const TAG: &str = "1";

const LAYERS: u64 = 5;

/// Of each layer: how many files, and how large each is.
const SMALL: (u64, usize) = (2400, 6 << 10);
const MIDDLE: (u64, usize) = (120, 96 << 10);
const LARGE: (u64, usize) = (5, 3 << 20);

/// Words, as in scripts and documents.
const WORDS: [&str; 16] = [
    "the ", "return ", "if ", "value ", "\n", "    ", "define ", "of ", "package ", "= ", "(", ")", "0x",
    "error ", "file ", "is ",
];

/// A layout with the image, made once: 200 MiB when it is unpacked.
pub fn layout(cache: &Cache) -> Result<PathBuf> {
    cache.slow_entry("bench-image", RECIPE, Duration::from_secs(30), |dir| {
        let about = About {
            tag: TAG,
            command: &["/bin/sh"],
            made_by: "the bench",
        };
        let layers: Result<Vec<Layer>> = (0..LAYERS).map(layer).collect();
        oci::write_layers(dir, &about, layers?)
    })
}

fn layer(number: u64) -> Result<Layer> {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15 ^ (number + 1));
    let mut layer = Layer::new();
    let top = format!("usr/share/layer-{number}");
    layer
        .folder("usr", 0o755)?
        .folder("usr/share", 0o755)?
        .folder(&top, 0o755)?;
    for file in 0..SMALL.0 {
        let folder = format!("{top}/{}", file / 100);
        if file % 100 == 0 {
            layer.folder(&folder, 0o755)?;
        }
        layer.file(&format!("{folder}/{file}.txt"), 0o644, &chance.text(SMALL.1))?;
    }
    for file in 0..MIDDLE.0 {
        layer.file(&format!("{top}/{file}.so"), 0o755, &chance.code(MIDDLE.1))?;
    }
    for file in 0..LARGE.0 {
        layer.file(&format!("{top}/{file}.bin"), 0o755, &chance.code(LARGE.1))?;
    }
    Ok(layer)
}

/// A seeded source of numbers (xorshift).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Up to so many words, which pack well.
    fn text(&mut self, most: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(most);
        while text.len() + 8 < most {
            let word = usize::try_from(self.next() >> 60).unwrap_or_default();
            text.extend_from_slice(WORDS.get(word).map_or(b"", |word| word.as_bytes()));
        }
        text
    }

    /// As programs pack: in turn what repeats and what does not.
    fn code(&mut self, length: usize) -> Vec<u8> {
        let mut code = Vec::with_capacity(length + 64);
        while code.len() < length {
            let number = self.next();
            code.extend_from_slice(&number.to_le_bytes());
            code.extend_from_slice(&(number >> 56).to_le_bytes());
        }
        code.truncate(length);
        code
    }
}
