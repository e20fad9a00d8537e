//! What is booted, as JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Boot, Firmware, Payload, SpecError, Vars};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct BootDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kernel: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    firmware: Option<FirmwareDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    initrd: Option<PathBuf>,
    #[serde(default)]
    cmdline: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    overlays: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FirmwareDocument {
    image: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vars: Option<VarsDocument>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct VarsDocument {
    file: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<PathBuf>,
}

impl TryFrom<BootDocument> for Boot {
    type Error = SpecError;

    fn try_from(wire: BootDocument) -> Result<Self, SpecError> {
        let payload = match (wire.kernel, wire.firmware) {
            (Some(kernel), None) => Payload::Kernel(kernel),
            (None, Some(firmware)) => Payload::Firmware(Firmware {
                image: firmware.image,
                vars: firmware.vars.map(|vars| Vars {
                    file: vars.file,
                    template: vars.template,
                }),
            }),
            _ => return Err(SpecError::Payload),
        };
        Ok(Self {
            payload,
            initrd: wire.initrd,
            cmdline: wire.cmdline,
            overlays: wire.overlays,
        })
    }
}

impl From<&Boot> for BootDocument {
    fn from(boot: &Boot) -> Self {
        let (kernel, firmware) = match &boot.payload {
            Payload::Kernel(kernel) => (Some(kernel.clone()), None),
            Payload::Firmware(firmware) => (None, Some(firmware.into())),
        };
        Self {
            kernel,
            firmware,
            initrd: boot.initrd.clone(),
            cmdline: boot.cmdline.clone(),
            overlays: boot.overlays.clone(),
        }
    }
}

impl From<&Firmware> for FirmwareDocument {
    fn from(firmware: &Firmware) -> Self {
        let vars = firmware.vars.as_ref().map(|vars| VarsDocument {
            file: vars.file.clone(),
            template: vars.template.clone(),
        });
        Self {
            image: firmware.image.clone(),
            vars,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Boot, SpecError> {
        serde_json::from_str::<BootDocument>(json).unwrap().try_into()
    }

    #[test]
    fn a_document_names_a_kernel_or_a_firmware_and_not_both() {
        assert_eq!(
            read(r#"{"kernel":"/Image","cmdline":"console=ttyS0"}"#),
            Ok(Boot::new("/Image"))
        );
        assert_eq!(
            read(r#"{"kernel":"/Image","firmware":{"image":"/u-boot.bin"}}"#),
            Err(SpecError::Payload)
        );
        assert_eq!(read("{}"), Err(SpecError::Payload));
    }

    #[test]
    fn a_firmware_and_overlays_survive_their_json_form() {
        let boot = Boot {
            overlays: vec!["/a.dtbo".into()],
            ..Boot::firmware(Firmware {
                image: "/code.fd".into(),
                vars: Some(Vars {
                    file: "/vars.fd".into(),
                    template: None,
                }),
            })
        };
        let json = serde_json::to_string(&BootDocument::from(&boot)).unwrap();
        assert_eq!(read(&json), Ok(boot));
    }
}
