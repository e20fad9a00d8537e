//! What is kept of registries' images, for people to see and to remove: `rvm images`.
//!
//! An image's blobs are in the [`store`](super::store); what machines boot was made from them and lies in `<state>/roots`, under a
//! name that begins with the manifest's digest. Removing an image takes both, but never a file that a machine's Spec names. While
//! an image is pulled, or made into what a machine boots, the store is in use and nothing is removed.

use std::fs;
use std::time::SystemTime;

use super::store::Record;
use super::{ImageError, Images};
use crate::images::mirror::NameError;

/// An image that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its full name.
    pub name: String,
    /// Its manifest's digest: sha256, in hex.
    pub digest: String,
    /// Bytes of it, as they were fetched.
    pub size: u64,
    /// Bytes of what was made of it.
    pub unpacked: u64,
    /// When it was last asked for.
    pub asked_for: SystemTime,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// The images, by their full names.
    pub names: Vec<String>,
    /// The bytes that are free now.
    pub freed: u64,
}

// === impl Images ===

impl Images {
    /// An image's full name.
    ///
    /// # Errors
    /// It is no name.
    pub fn full_name(&self, image: &str) -> Result<String, NameError> {
        Ok(self.mirrors.sources(image)?.0)
    }

    /// What is kept, by name.
    ///
    /// # Errors
    /// [`ImageError::Store`] or [`ImageError::Cache`].
    pub fn kept(&self) -> Result<Vec<Kept>, ImageError> {
        let made = self.made_files()?;
        let kept = self.store.all()?.into_iter().map(|(record, size, asked_for)| {
            let of_it = made.iter().filter(|(name, _)| is_made_of(name, &record));
            Kept {
                unpacked: of_it.map(|(_, bytes)| bytes).sum(),
                name: record.image,
                digest: record.digest,
                size,
                asked_for,
            }
        });
        let mut kept: Vec<Kept> = kept.collect();
        kept.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(kept)
    }

    /// Removes images by their full names, and what was made of them and stands in none of the machines' specs. Nothing where an
    /// image is being fetched or made use of at this moment.
    ///
    /// # Errors
    /// [`ImageError::Store`] or [`ImageError::Cache`].
    pub fn remove(
        &self,
        which: &dyn Fn(&str) -> bool,
        specs: &[String],
    ) -> Result<Option<Removed>, ImageError> {
        let Some(alone) = self.store.alone()? else {
            return Ok(None);
        };
        let all = self.store.all()?.into_iter().map(|(record, ..)| record);
        let (gone, stay): (Vec<Record>, Vec<Record>) = all.partition(|record| which(&record.image));
        let mut freed = self.store.forget(&alone, &|record| which(&record.image))?;
        for (name, bytes) in self.made_files()? {
            let is_of = |records: &[Record]| records.iter().any(|record| is_made_of(&name, record));
            let is_used = specs.iter().any(|spec| spec.contains(&name));
            if is_of(&gone) && !is_of(&stay) && !is_used {
                let removed = fs::remove_file(self.cache.join(&name));
                removed.map_err(|error| ImageError::Cache(self.cache.clone(), error))?;
                freed += bytes;
            }
        }
        let names = gone.into_iter().map(|record| record.image).collect();
        Ok(Some(Removed { names, freed }))
    }

    /// The files that were made of images, and the bytes that each takes.
    fn made_files(&self) -> Result<Vec<(String, u64)>, ImageError> {
        let read = || {
            let entries = fs::read_dir(&self.cache)?.map(|entry| {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                Ok((name, entry.metadata()?.len()))
            });
            entries.collect::<std::io::Result<_>>()
        };
        read().map_err(|error| ImageError::Cache(self.cache.clone(), error))
    }
}

fn is_made_of(name: &str, record: &Record) -> bool {
    name.strip_prefix(&record.digest)
        .is_some_and(|rest| rest.starts_with('-'))
}
