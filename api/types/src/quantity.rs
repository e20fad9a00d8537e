//! Quantities as Kubernetes writes them: `256Mi`, `1.5G`, `1e9`, `100m`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Kubernetes' own pattern of a quantity, for the CRD.
pub const PATTERN: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
/// A quantity's text is never longer than this; Kubernetes' own numbers need 20 digits at most.
pub const MAX_LENGTH: usize = 64;
/// The greatest power of ten that is worth looking at: anything beyond does not fit 63 bits.
const MAX_EXPONENT: u32 = 30;

/// An amount of memory, of a disk or of processors, kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Quantity {
    /// A bare number.
    Number(i64),
    /// A number with, maybe, a fraction, a suffix or an exponent.
    Text(String),
}

/// What is wrong with a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It does not follow the grammar.
    #[error("is not a quantity such as 256Mi, 1.5G or 1e9")]
    Malformed,
    /// It is less than nothing.
    #[error("must not be negative")]
    Negative,
    /// It does not fit 63 bits.
    #[error("is too large")]
    TooLarge,
}

impl Quantity {
    /// The amount in whole units, rounded up as Kubernetes does: bytes of memory, or processors.
    pub fn value(&self) -> Result<u64, QuantityError> {
        self.scaled(1)
    }

    /// The amount in bytes; the same as [`Quantity::value`], by the name that fits memory and disks.
    pub fn bytes(&self) -> Result<u64, QuantityError> {
        self.value()
    }

    /// The amount in thousandths, rounded up: `100m` of a processor is 100.
    pub fn millis(&self) -> Result<u64, QuantityError> {
        self.scaled(1000)
    }

    fn scaled(&self, scale: u128) -> Result<u64, QuantityError> {
        let text: Cow<'_, str> = match self {
            Self::Number(number) => number.to_string().into(),
            Self::Text(text) => text.into(),
        };
        let (number, suffix) = Decimal::split(&text)?;
        let (up, down) = multiplier(suffix)?;
        let over = |factor: Option<u128>| factor.ok_or(QuantityError::TooLarge);
        let numerator = over(over(number.digits.checked_mul(up))?.checked_mul(scale))?;
        let denominator = over(
            10u128
                .checked_pow(number.places)
                .and_then(|tens| tens.checked_mul(down)),
        )?;
        let value = u64::try_from(numerator.div_ceil(denominator)).map_err(|_| QuantityError::TooLarge)?;
        match (i64::try_from(value), number.negative && value > 0) {
            (Err(_), _) => Err(QuantityError::TooLarge),
            (_, true) => Err(QuantityError::Negative),
            _ => Ok(value),
        }
    }
}

/// `digits` over ten to the power of `places`.
struct Decimal {
    negative: bool,
    digits: u128,
    places: u32,
}

impl Decimal {
    /// Takes the number off the front of a quantity; what is left is its suffix.
    fn split(text: &str) -> Result<(Self, &str), QuantityError> {
        if text.len() > MAX_LENGTH {
            return Err(QuantityError::Malformed);
        }
        let (negative, text) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return Err(QuantityError::Malformed);
        }
        let fraction = fraction.trim_end_matches('0');
        let digits = [whole.trim_start_matches('0'), fraction].concat();
        let digits = if digits.is_empty() { "0" } else { &digits };
        let digits = digits.parse().map_err(|_| QuantityError::TooLarge)?;
        let places = u32::try_from(fraction.len()).expect("no longer than MAX_LENGTH");
        Ok((
            Self {
                negative,
                digits,
                places,
            },
            suffix,
        ))
    }
}

/// What a suffix multiplies and divides by.
fn multiplier(suffix: &str) -> Result<(u128, u128), QuantityError> {
    let binary = |power: u32| Ok((1u128 << (10 * power), 1));
    let decimal = |power: u32| Ok((10u128.pow(power), 1));
    match suffix {
        "" => Ok((1, 1)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "m" => Ok((1, 1000)),
        "u" => Ok((1, 1_000_000)),
        "n" => Ok((1, 1_000_000_000)),
        _ => exponent(suffix),
    }
}

/// `e9` or `E-3`.
fn exponent(suffix: &str) -> Result<(u128, u128), QuantityError> {
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Malformed)?;
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, digits.strip_prefix('+').unwrap_or(digits)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(QuantityError::Malformed);
    }
    let power = digits
        .parse()
        .ok()
        .filter(|power| *power <= MAX_EXPONENT)
        .ok_or(QuantityError::TooLarge)?;
    let tens = 10u128.pow(power);
    Ok(if negative { (1, tens) } else { (tens, 1) })
}

impl Default for Quantity {
    fn default() -> Self {
        Self::Text("0".to_owned())
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "pattern": PATTERN })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Result<u64, QuantityError> {
        Quantity::from(text).value()
    }

    #[test]
    fn binary_suffixes_are_powers_of_1024() {
        assert_eq!(value("1Ki"), Ok(1024));
        assert_eq!(value("256Mi"), Ok(256 << 20));
        assert_eq!(value("1.5Gi"), Ok(3 << 29));
        assert_eq!(value("7Ei"), Ok(7 << 60));
    }

    #[test]
    fn decimal_suffixes_and_exponents_are_powers_of_ten() {
        assert_eq!(value("1024M"), Ok(1_024_000_000));
        assert_eq!(value("1.5k"), Ok(1500));
        assert_eq!(value("1E"), Ok(1_000_000_000_000_000_000));
        assert_eq!(value("1e3"), Ok(1000));
        assert_eq!(value("12E+2"), Ok(1200));
        assert_eq!(value(".5k"), Ok(500));
        assert_eq!(value("5."), Ok(5));
    }

    #[test]
    fn fractions_of_a_unit_are_rounded_up() {
        assert_eq!(value("100m"), Ok(1));
        assert_eq!(value("1e-9"), Ok(1));
        assert_eq!(Quantity::from("100m").millis(), Ok(100));
        assert_eq!(Quantity::Number(2).millis(), Ok(2000));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        let refused = [
            "", "x", "1KiB", "1 Gi", "1..2", ".", "-", "1e", "1e1.5", "0x10", "1_000", "1K",
        ];
        assert_eq!(refused.map(value), [Err(QuantityError::Malformed); 12]);
        assert_eq!(value(&"1".repeat(MAX_LENGTH + 1)), Err(QuantityError::Malformed));
    }

    #[test]
    fn what_does_not_fit_63_bits_is_too_large() {
        let refused = ["8Ei", "10E", "9223372036854775808", "1e31", "1e4294967296"];
        assert_eq!(refused.map(value), [Err(QuantityError::TooLarge); 5]);
        assert_eq!(value("9223372036854775807"), Ok(u64::MAX >> 1));
    }

    #[test]
    fn less_than_nothing_is_refused() {
        assert_eq!(value("-1Gi"), Err(QuantityError::Negative));
        assert_eq!(Quantity::Number(-1).bytes(), Err(QuantityError::Negative));
        assert_eq!(value("-0"), Ok(0));
    }

    #[test]
    fn a_bare_number_stays_a_number() {
        let quantity: Quantity = serde_json::from_str("1024").unwrap();
        assert_eq!(quantity, Quantity::Number(1024));
        assert_eq!(serde_json::to_string(&quantity).unwrap(), "1024");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,70}") {
            let _ = value(&text);
        }

        #[test]
        fn no_near_quantity_panics(text in "[+-]?[0-9.]{0,40}[eE]?[-+]?[0-9]{0,12}[KMGTPEnumk]?i?") {
            let _ = value(&text);
        }

        #[test]
        fn whole_numbers_are_themselves(number in 0..i64::MAX) {
            prop_assert_eq!(value(&number.to_string()), Ok(number.unsigned_abs()));
        }
    }
}
