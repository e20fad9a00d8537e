//! The ISA extensions that KVM can give to a guest: one table, in the canonical order of ISA strings.
//!
//! Order: single letters as in the unprivileged specification's naming chapter, then `Z…` by their second letter's
//! category, then `S…`. The numbers are `KVM_RISCV_ISA_EXT_*` of Linux's uapi; KVM answers `ENOENT` for those that it
//! is too old to know.

/// An extension by its two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    /// Lower case, as in a device tree.
    pub name: &'static str,
    /// The index of its one-reg.
    pub kvm_id: u32,
}

/// All known extensions, in canonical order.
pub const EXTENSIONS: &[Extension] = &[
    Extension { name: "i", kvm_id: 5 },
    Extension { name: "m", kvm_id: 6 },
    Extension { name: "a", kvm_id: 0 },
    Extension { name: "f", kvm_id: 3 },
    Extension { name: "d", kvm_id: 2 },
    Extension { name: "c", kvm_id: 1 },
    Extension {
        name: "v",
        kvm_id: 15,
    },
    Extension { name: "h", kvm_id: 4 },
    Extension {
        name: "zicbom",
        kvm_id: 11,
    },
    Extension {
        name: "zicbop",
        kvm_id: 71,
    },
    Extension {
        name: "zicboz",
        kvm_id: 12,
    },
    Extension {
        name: "ziccrse",
        kvm_id: 68,
    },
    Extension {
        name: "zicntr",
        kvm_id: 19,
    },
    Extension {
        name: "zicond",
        kvm_id: 24,
    },
    Extension {
        name: "zicsr",
        kvm_id: 20,
    },
    Extension {
        name: "zifencei",
        kvm_id: 21,
    },
    Extension {
        name: "zihintntl",
        kvm_id: 48,
    },
    Extension {
        name: "zihintpause",
        kvm_id: 10,
    },
    Extension {
        name: "zihpm",
        kvm_id: 22,
    },
    Extension {
        name: "zimop",
        kvm_id: 55,
    },
    Extension {
        name: "zaamo",
        kvm_id: 69,
    },
    Extension {
        name: "zabha",
        kvm_id: 67,
    },
    Extension {
        name: "zacas",
        kvm_id: 53,
    },
    Extension {
        name: "zalrsc",
        kvm_id: 70,
    },
    Extension {
        name: "zawrs",
        kvm_id: 61,
    },
    Extension {
        name: "zfa",
        kvm_id: 51,
    },
    Extension {
        name: "zfbfmin",
        kvm_id: 72,
    },
    Extension {
        name: "zfh",
        kvm_id: 46,
    },
    Extension {
        name: "zfhmin",
        kvm_id: 47,
    },
    Extension {
        name: "zca",
        kvm_id: 56,
    },
    Extension {
        name: "zcb",
        kvm_id: 57,
    },
    Extension {
        name: "zcd",
        kvm_id: 58,
    },
    Extension {
        name: "zcf",
        kvm_id: 59,
    },
    Extension {
        name: "zcmop",
        kvm_id: 60,
    },
    Extension {
        name: "zba",
        kvm_id: 17,
    },
    Extension {
        name: "zbb",
        kvm_id: 13,
    },
    Extension {
        name: "zbc",
        kvm_id: 25,
    },
    Extension {
        name: "zbkb",
        kvm_id: 26,
    },
    Extension {
        name: "zbkc",
        kvm_id: 27,
    },
    Extension {
        name: "zbkx",
        kvm_id: 28,
    },
    Extension {
        name: "zbs",
        kvm_id: 18,
    },
    Extension {
        name: "zvbb",
        kvm_id: 36,
    },
    Extension {
        name: "zvbc",
        kvm_id: 37,
    },
    Extension {
        name: "zvfbfmin",
        kvm_id: 73,
    },
    Extension {
        name: "zvfbfwma",
        kvm_id: 74,
    },
    Extension {
        name: "zvfh",
        kvm_id: 49,
    },
    Extension {
        name: "zvfhmin",
        kvm_id: 50,
    },
    Extension {
        name: "zvkb",
        kvm_id: 38,
    },
    Extension {
        name: "zvkg",
        kvm_id: 39,
    },
    Extension {
        name: "zvkned",
        kvm_id: 40,
    },
    Extension {
        name: "zvknha",
        kvm_id: 41,
    },
    Extension {
        name: "zvknhb",
        kvm_id: 42,
    },
    Extension {
        name: "zvksed",
        kvm_id: 43,
    },
    Extension {
        name: "zvksh",
        kvm_id: 44,
    },
    Extension {
        name: "zvkt",
        kvm_id: 45,
    },
    Extension {
        name: "zknd",
        kvm_id: 29,
    },
    Extension {
        name: "zkne",
        kvm_id: 30,
    },
    Extension {
        name: "zknh",
        kvm_id: 31,
    },
    Extension {
        name: "zkr",
        kvm_id: 32,
    },
    Extension {
        name: "zksed",
        kvm_id: 33,
    },
    Extension {
        name: "zksh",
        kvm_id: 34,
    },
    Extension {
        name: "zkt",
        kvm_id: 35,
    },
    Extension {
        name: "ztso",
        kvm_id: 52,
    },
    Extension {
        name: "smnpm",
        kvm_id: 62,
    },
    Extension {
        name: "smstateen",
        kvm_id: 23,
    },
    Extension {
        name: "ssaia",
        kvm_id: 14,
    },
    Extension {
        name: "sscofpmf",
        kvm_id: 54,
    },
    Extension {
        name: "ssnpm",
        kvm_id: 63,
    },
    Extension {
        name: "sstc",
        kvm_id: 8,
    },
    Extension {
        name: "svade",
        kvm_id: 64,
    },
    Extension {
        name: "svadu",
        kvm_id: 65,
    },
    Extension {
        name: "svinval",
        kvm_id: 9,
    },
    Extension {
        name: "svnapot",
        kvm_id: 16,
    },
    Extension {
        name: "svpbmt",
        kvm_id: 7,
    },
    Extension {
        name: "svvptc",
        kvm_id: 66,
    },
];

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
    fn the_isa_string_is_written_as_linux_reads_it() {
        assert_eq!(
            isa_string(&["i", "m", "a", "f", "d", "c", "zicsr", "zba", "sstc"]),
            "rv64imafdc_zicsr_zba_sstc"
        );
    }
}
