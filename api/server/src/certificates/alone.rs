//! A server that nobody hands a certificate: it makes its own, which nobody believes who has not seen it before.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::authority::Authorities;
use super::keep::Identity;
use super::kept::KeepError;

/// How often it is made anew: well within its life.
const ROUND: Duration = Duration::from_secs(10 * 24 * 60 * 60);

/// A server's own certificates, for these names.
pub struct Alone {
    authorities: Authorities,
    names: Vec<String>,
}

// === impl Alone ===

impl Alone {
    /// Makes an authority, which lives as long as this does.
    ///
    /// # Errors
    /// A name that no certificate can have.
    pub fn new(names: Vec<String>) -> Result<(Self, watch::Sender<Arc<Identity>>), KeepError> {
        let authorities = Authorities::first(Timestamp::now())?;
        let alone = Self { authorities, names };
        let identity = watch::Sender::new(Arc::new(alone.identity()?));
        Ok((alone, identity))
    }

    /// Makes another pair in time, for ever.
    pub async fn go_on(mut self, identity: watch::Sender<Arc<Identity>>) {
        loop {
            tokio::time::sleep(ROUND).await;
            match self.renewed() {
                Ok(now) => drop(identity.send_replace(Arc::new(now))),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the certificate stays as it was");
                }
            }
        }
    }

    fn renewed(&mut self) -> Result<Identity, KeepError> {
        if let Some(renewed) = self.authorities.renewed(Timestamp::now())? {
            self.authorities = renewed;
        }
        self.identity()
    }

    fn identity(&self) -> Result<Identity, KeepError> {
        Ok(Identity {
            pair: self.authorities.issue(&self.names, Timestamp::now())?,
            bundle: self.authorities.bundle(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_signed_by_whom_the_bundle_names() {
        let (mut alone, identity) = Alone::new(vec!["vm-console.web.svc".to_owned()]).unwrap();
        let first = Arc::clone(&identity.borrow());
        let second = alone.renewed().unwrap();
        assert_eq!(first.bundle, second.bundle);
        assert!(first.pair != second.pair);
        assert!(alone.authorities.stand_for(&first.pair, Timestamp::now()));
    }
}
