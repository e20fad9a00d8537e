//! Authorities and what they sign; pure but for the random numbers in the keys.

use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::parts;

const AUTHORITY_DAYS: i32 = 365;
const LEAF_DAYS: i32 = 30;
/// A life begins a day ago, for clocks that disagree.
const EARLIER: i32 = 1;
/// How old an authority is when it begins to sign for those who have heard of it by then: a day, and that earlier one.
const SIGNS_FROM: i64 = 2 * 24 * 60 * 60;

/// What a Secret holds.
pub(super) type Data = BTreeMap<String, ByteString>;

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// Who signs, and who is believed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Authorities {
    newest: Pair,
    former: Option<Pair>,
}

/// What of a certificate's life is over, and what is left, in seconds.
struct Life {
    issuer: Vec<u8>,
    subject: Vec<u8>,
    age: i64,
    left: i64,
}

// === impl Authorities ===

impl Authorities {
    /// The first one.
    pub(super) fn first(now: Timestamp) -> Result<Self, rcgen::Error> {
        let newest = make_authority(now)?;
        Ok(Self { newest, former: None })
    }

    /// Those of a Secret; none where it holds none.
    pub(super) fn read(data: &Data) -> Option<Self> {
        let newest = Pair::read(data, parts::CERTIFICATE, parts::KEY)?;
        let former = Pair::read(data, parts::FORMER_CERTIFICATE, parts::FORMER_KEY);
        Some(Self { newest, former })
    }

    /// The same, for a Secret.
    pub(super) fn data(&self) -> Data {
        let mut data = self.newest.data(parts::CERTIFICATE, parts::KEY);
        if let Some(former) = &self.former {
            data.extend(former.data(parts::FORMER_CERTIFICATE, parts::FORMER_KEY));
        }
        data
    }

    /// Those that are to be from now on, where that is time.
    pub(super) fn renewed(&self, now: Timestamp) -> Result<Option<Self>, rcgen::Error> {
        if self.newest.lasts(now) {
            return Ok(None);
        }
        Ok(Some(Self {
            newest: make_authority(now)?,
            former: Some(self.newest.clone()),
        }))
    }

    /// All who are believed.
    pub(super) fn bundle(&self) -> String {
        let former = self.former.iter().map(|former| former.certificate.as_str());
        std::iter::once(self.newest.certificate.as_str())
            .chain(former)
            .collect()
    }

    /// A pair with these names, good for both ends of a connection.
    pub(super) fn issue(&self, names: &[String], now: Timestamp) -> Result<Pair, rcgen::Error> {
        let signer = self.signer(now);
        let issuer = Issuer::from_ca_cert_pem(&signer.certificate, KeyPair::from_pem(&signer.key)?)?;
        let mut params = lasting(CertificateParams::new(names)?, LEAF_DAYS, now);
        let name = names.first().map(String::as_str).unwrap_or_default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?.pem();
        let key = key.serialize_pem();
        Ok(Pair { certificate, key })
    }

    /// Whether this pair is one of theirs, and good for a while.
    pub(super) fn stand_for(&self, pair: &Pair, now: Timestamp) -> bool {
        let Some(leaf) = pair.life(now) else { return false };
        let authorities = std::iter::once(&self.newest).chain(&self.former);
        let mut signers = authorities.filter_map(|authority| authority.life(now));
        leaf.lasts() && signers.any(|signer| signer.subject == leaf.issuer)
    }

    fn signer(&self, now: Timestamp) -> &Pair {
        let old_enough = self.newest.life(now).is_none_or(|life| life.age >= SIGNS_FROM);
        match &self.former {
            Some(former) if !old_enough && former.life(now).is_some_and(|life| life.left > 0) => former,
            _ => &self.newest,
        }
    }
}

// === impl Pair ===

impl Pair {
    /// A pair from a Secret, where it is one.
    pub(super) fn read(data: &Data, certificate: &str, key: &str) -> Option<Self> {
        let text = |part: &str| String::from_utf8(data.get(part)?.0.clone()).ok();
        let (certificate, key) = (text(certificate)?, text(key)?);
        KeyPair::from_pem(&key).ok()?;
        Some(Self { certificate, key })
    }

    pub(super) fn data(&self, certificate: &str, key: &str) -> Data {
        [(certificate, &self.certificate), (key, &self.key)]
            .map(|(part, text)| (part.to_owned(), ByteString(text.clone().into_bytes())))
            .into()
    }

    fn lasts(&self, now: Timestamp) -> bool {
        self.life(now).is_some_and(|life| life.lasts())
    }

    fn life(&self, now: Timestamp) -> Option<Life> {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        let validity = certificate.validity();
        Some(Life {
            issuer: certificate.issuer().as_raw().to_vec(),
            subject: certificate.subject().as_raw().to_vec(),
            age: now.as_second() - validity.not_before.timestamp(),
            left: validity.not_after.timestamp() - now.as_second(),
        })
    }
}

// === impl Life ===

impl Life {
    /// Whether more than a third of it is left.
    fn lasts(&self) -> bool {
        self.age >= 0 && self.left > (self.age + self.left) / 3
    }
}

/// Each authority has a name of its own, so that one can tell by whom a certificate was signed.
fn make_authority(now: Timestamp) -> Result<Pair, rcgen::Error> {
    let params = CertificateParams::new(Vec::<String>::new())?;
    let mut params = lasting(params, AUTHORITY_DAYS, now);
    let name = format!("rvm-ca-{}", now.as_nanosecond());
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    let key = key.serialize_pem();
    Ok(Pair { certificate, key })
}

fn lasting(mut params: CertificateParams, days: i32, now: Timestamp) -> CertificateParams {
    let today = now.to_zoned(TimeZone::UTC).date();
    let day = |offset: i32| {
        let date = today.saturating_add(offset.days());
        rcgen::date_time_ymd(
            date.year().into(),
            date.month().unsigned_abs(),
            date.day().unsigned_abs(),
        )
    };
    params.distinguished_name = DistinguishedName::new();
    params.not_before = day(-EARLIER);
    params.not_after = day(days);
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(number: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + number * 24 * 60 * 60).expect("a time")
    }

    fn issued(by: &Authorities, now: Timestamp) -> Pair {
        by.issue(&["someone".to_owned()], now).expect("a certificate")
    }

    fn issuer(pair: &Pair) -> Vec<u8> {
        pair.life(day(0)).expect("a certificate").issuer
    }

    #[test]
    fn a_new_authority_is_believed_before_it_signs_and_the_former_one_after() {
        let first = Authorities::first(day(0)).expect("an authority");
        assert!(first.renewed(day(200)).is_ok_and(|renewed| renewed.is_none()));
        let both = first.renewed(day(300)).expect("one").expect("it is time");
        let (before, after) = (issued(&both, day(300)), issued(&both, day(302)));
        assert_eq!(issuer(&before), issuer(&issued(&first, day(0))));
        assert_ne!(issuer(&after), issuer(&before));
        assert!(both.stand_for(&before, day(301)) && both.stand_for(&after, day(303)));
        assert_eq!(both.bundle().matches("BEGIN CERTIFICATE").count(), 2);
    }

    #[test]
    fn an_authority_that_nobody_renewed_in_time_gives_way_at_once() {
        let first = Authorities::first(day(0)).expect("an authority");
        let late = first.renewed(day(400)).expect("one").expect("it is time");
        assert_ne!(issuer(&issued(&late, day(400))), issuer(&issued(&first, day(0))));
    }

    #[test]
    fn a_certificate_is_renewed_before_it_expires_and_no_strangers_are_kept() {
        let (ours, others) = (Authorities::first(day(0)), Authorities::first(day(1)));
        let (ours, others) = (ours.expect("an authority"), others.expect("an authority"));
        let pair = issued(&ours, day(0));
        assert!(ours.stand_for(&pair, day(10)));
        assert!(!ours.stand_for(&pair, day(25)));
        assert!(!others.stand_for(&pair, day(10)));
    }

    #[test]
    fn a_secret_keeps_both_and_what_is_damaged_is_none() {
        let first = Authorities::first(day(0)).expect("an authority");
        let both = first.renewed(day(300)).expect("one").expect("it is time");
        assert!(Authorities::read(&both.data()).is_some_and(|read| read == both));
        let mut damaged = both.data();
        damaged.insert(parts::KEY.to_owned(), ByteString(b"nonsense".to_vec()));
        assert!(Authorities::read(&damaged).is_none());
    }
}
