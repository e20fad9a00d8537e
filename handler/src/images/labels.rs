//! What an image asks of the machine that it is to be the root file system of, by the labels of its configuration.

use oci_spec::image::{Descriptor, ImageConfiguration, MediaType, Sha256Digest};

use super::layout::{Image, Layout, LayoutError};

/// Extensions of the processors, as in `v=on,zbb=off`. A VMI that names any has the last word.
pub const CPU: &str = "rvm.cpu.features";

/// What [`CPU`] says.
pub(super) fn cpu_features(layout: &Layout, image: &Image) -> Result<Option<String>, LayoutError> {
    let digest = image.config.parse::<Sha256Digest>();
    let digest = digest.map_err(|_| LayoutError::DigestForm(image.config.clone()))?;
    let config = Descriptor::new(MediaType::ImageConfig, image.config_size, digest);
    let config: ImageConfiguration = layout.document(&config)?;
    let labels = config
        .config()
        .as_ref()
        .and_then(|config| config.labels().as_ref());
    Ok(labels.and_then(|labels| labels.get(CPU)).cloned())
}
