//! The CPUs that a guest sees: the host's, with extensions switched by name.

use std::fmt;
use std::str::FromStr;

use crate::limits::{MAX_EXTENSION_NAME, MAX_SWITCHES};

/// The only model there is: what the host offers.
const HOST: &str = "host";

/// What a guest's CPUs are. `host`, or `host,zbb=off,v=on`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuModel {
    switches: Vec<Switch>,
}

/// An extension that is to be there, or not to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Lower case, as in a device tree. Whether it exists is for the backend to say.
    pub extension: String,
    /// Whether the guest has it.
    pub on: bool,
}

/// The text is no CPU model. Each text says what is possible.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseCpuError {
    /// Another model.
    #[error("CPU model '{0}' is not known: 'host' is, with extensions switched as in host,zbb=off")]
    Model(String),
    /// Not `name=on|off`.
    #[error("'{0}' switches no extension: write zbb=on or zbb=off, in lower case")]
    Switch(String),
    /// Twice, perhaps to different ends.
    #[error("extension '{0}' is switched twice")]
    Twice(String),
    /// More than there are.
    #[error("more than {MAX_SWITCHES} extensions are switched")]
    TooMany,
}

// === impl CpuModel ===

impl CpuModel {
    /// What differs from the host, in the order in which it was given.
    pub fn switches(&self) -> &[Switch] {
        &self.switches
    }
}

impl FromStr for CpuModel {
    type Err = ParseCpuError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split(',');
        if words.next() != Some(HOST) {
            return Err(ParseCpuError::Model(text.to_owned()));
        }
        let mut model = Self::default();
        for word in words {
            let switch = parse_switch(word).ok_or_else(|| ParseCpuError::Switch(word.to_owned()))?;
            if model
                .switches
                .iter()
                .any(|other| other.extension == switch.extension)
            {
                return Err(ParseCpuError::Twice(switch.extension));
            }
            if model.switches.len() == MAX_SWITCHES {
                return Err(ParseCpuError::TooMany);
            }
            model.switches.push(switch);
        }
        Ok(model)
    }
}

fn parse_switch(word: &str) -> Option<Switch> {
    let (name, state) = word.split_once('=')?;
    let on = match state {
        "on" => true,
        "off" => false,
        _ => return None,
    };
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = (1..=MAX_EXTENSION_NAME).contains(&name.len()) && name.bytes().all(letters);
    is_name.then(|| Switch {
        extension: name.to_owned(),
        on,
    })
}

impl fmt::Display for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HOST)?;
        for Switch { extension, on } in &self.switches {
            write!(f, ",{extension}={}", if *on { "on" } else { "off" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(text: &str) -> String {
        text.parse::<CpuModel>().unwrap_err().to_string()
    }

    #[test]
    fn a_model_is_the_host_with_its_switches() {
        assert_eq!("host".parse(), Ok(CpuModel::default()));
        let model: CpuModel = "host,zbb=off,v=on".parse().unwrap();
        let switches: Vec<_> = model
            .switches()
            .iter()
            .map(|one| (one.extension.as_str(), one.on))
            .collect();
        assert_eq!(switches, [("zbb", false), ("v", true)]);
        assert_eq!(model.to_string(), "host,zbb=off,v=on");
    }

    #[test]
    fn every_wrong_word_is_named() {
        assert!(refusal("max").starts_with("CPU model 'max' is not known"));
        assert!(refusal("").starts_with("CPU model ''"));
        for word in ["zbb", "zbb=no", "=on", "ZBB=on", "z,bb=on", "zbb=on ", "a-b=on"] {
            assert!(
                refusal(&format!("host,{word}")).contains("switches no extension"),
                "{word}"
            );
        }
        assert_eq!(refusal("host,v=on,v=off"), "extension 'v' is switched twice");
        let many: String = (0..129).map(|number| format!(",z{number}=on")).collect();
        assert_eq!(
            refusal(&format!("host{many}")),
            "more than 128 extensions are switched"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_model_that_prints_as_itself_or_is_refused(text in "host(,[a-z0-9=,]{0,12}(=on|=off)?){0,4}") {
            if let Ok(model) = text.parse::<CpuModel>() {
                prop_assert_eq!(model.to_string(), text);
            }
        }
    }
}
