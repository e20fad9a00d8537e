//! What the host makes guest RAM of: whose pages, of which size, and when they are taken.

use std::fmt;
use std::str::FromStr;

use crate::error::SpecError;
use crate::{MemorySize, ParseSizeError};

/// How guest RAM is backed. By default it is private to the machine, made of small pages and, where the host has them to
/// spare, of huge ones, each taken when the guest first touches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryBacking {
    /// In a memory file that another process (virtiofsd, a vhost-user backend) may map.
    pub shared: bool,
    /// Out of the host's pool of huge pages of this size, which has to be filled before.
    pub huge_pages: Option<HugePages>,
    /// All of it is taken at the start, rather than at the guest's first touch.
    pub prefault: bool,
    /// Whether the host may use transparent huge pages.
    pub thp: Thp,
}

/// Sizes of the pages in the host's pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HugePages {
    /// 2 MiB.
    TwoMib,
    /// 1 GiB.
    OneGib,
}

/// Transparent huge pages: fewer faults, for up to 2 MiB taken where the guest touches one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Thp {
    /// Ask for them. A host whose setting is `never` gives none.
    #[default]
    Always,
    /// None, whatever the host's setting.
    Never,
}

/// An amount of memory and its backing, as people write them: `256M,shared,hugepages=2M,prefault,thp=never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryOption {
    /// How much.
    pub size: MemorySize,
    /// Of what.
    pub backing: MemoryBacking,
}

/// The text is no amount of memory with a backing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseMemoryError {
    /// Its first part.
    #[error(transparent)]
    Size(#[from] ParseSizeError),
    /// A part that says nothing known.
    #[error("'{0}' is not known; 'shared', 'hugepages=2M|1G', 'prefault' and 'thp=always|never' are")]
    Part(String),
}

// === impl MemoryBacking ===

impl MemoryBacking {
    pub(crate) fn check(self, size: MemorySize) -> Result<(), SpecError> {
        match self.huge_pages {
            Some(pages) if !size.bytes().is_multiple_of(pages.bytes()) => {
                Err(SpecError::HugePages(size, pages))
            }
            _ => Ok(()),
        }
    }
}

// === impl HugePages ===

impl HugePages {
    /// Bytes of one page.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::TwoMib => 2 << 20,
            Self::OneGib => 1 << 30,
        }
    }
}

impl fmt::Display for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        MemorySize::from_bytes(self.bytes()).fmt(f)
    }
}

// === impl MemoryOption ===

impl FromStr for MemoryOption {
    type Err = ParseMemoryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',');
        let size = parts.next().unwrap_or_default().parse()?;
        let mut backing = MemoryBacking::default();
        for part in parts {
            match part {
                "shared" => backing.shared = true,
                "prefault" => backing.prefault = true,
                "hugepages=2M" => backing.huge_pages = Some(HugePages::TwoMib),
                "hugepages=1G" => backing.huge_pages = Some(HugePages::OneGib),
                "thp=always" => backing.thp = Thp::Always,
                "thp=never" => backing.thp = Thp::Never,
                _ => return Err(ParseMemoryError::Part(part.to_owned())),
            }
        }
        Ok(Self { size, backing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Boot, Spec};

    #[test]
    fn every_part_of_the_option_is_read() {
        let option: MemoryOption = "1G,shared,hugepages=2M,prefault,thp=never".parse().unwrap();
        assert_eq!(option.size, MemorySize::from_mib(1024));
        let backing = MemoryBacking {
            shared: true,
            huge_pages: Some(HugePages::TwoMib),
            prefault: true,
            thp: Thp::Never,
        };
        assert_eq!(option.backing, backing);
        assert_eq!(
            "64M".parse::<MemoryOption>().unwrap().backing,
            MemoryBacking::default()
        );
    }

    #[test]
    fn unknown_parts_are_named() {
        let error = |text: &str| text.parse::<MemoryOption>().unwrap_err().to_string();
        assert!(error("256M,hugepages=4M").starts_with("'hugepages=4M' is not known; "));
        assert!(error(",shared").starts_with("'' is not a size"));
    }

    #[test]
    fn memory_is_a_whole_number_of_huge_pages() {
        let wish = |backing| {
            Spec::builder(Boot::new("Image"))
                .memory(MemorySize::from_mib(1536))
                .memory_backing(backing)
                .build()
        };
        let pages = |pages| MemoryBacking {
            huge_pages: Some(pages),
            ..MemoryBacking::default()
        };
        assert!(wish(pages(HugePages::TwoMib)).is_ok());
        let error = wish(pages(HugePages::OneGib)).unwrap_err().to_string();
        assert_eq!(
            error,
            "1536 MiB of memory is not possible in huge pages of 1 GiB: it must be a multiple"
        );
    }
}
