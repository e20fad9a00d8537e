//! What the handler and the process that pulls for it say to each other: a job, and lines about how it goes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::images::store::Record;

/// One image to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The store's folder.
    pub store: PathBuf,
    /// The image's full name, under which it is noted.
    pub image: String,
    /// Who is asked for it, one after the other until one has it.
    pub asked: Vec<Asked>,
}

/// Someone to ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Where.
    pub source: Source,
    /// Who asks.
    pub login: Option<Login>,
    /// The folder with certificates of those who sign for this registry alone, besides the system's.
    pub authorities: Option<PathBuf>,
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Host and maybe port.
    pub registry: String,
    /// The image's name there.
    pub repository: String,
    /// Which of its images.
    pub tag: Option<String>,
    /// Exactly which.
    pub digest: Option<String>,
    /// What it has to show.
    pub trust: Trust,
}

/// What a registry has to show before it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// A certificate that somebody signed whom we know.
    Signed,
    /// Nothing: any certificate, or none where it has none.
    Anybody,
    /// Nothing: it is asked without TLS.
    Plain,
}

/// A name and its password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password, or a token that serves as one.
    pub password: String,
}

/// How it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Said {
    /// So many bytes of the image are here, of so many.
    Progress(u64, u64),
    /// It is here.
    Done(Record),
    /// It cannot be had: why.
    Failed(String),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({})", self.user)
    }
}
