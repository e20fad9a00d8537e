//! What is promised of layouts: the riscv64 image, checked to the last byte, or a clear refusal.

use super::*;
use crate::images::sample::{Blobs, tar};
use serde_json::json;
use std::io::Seek;

fn digest_form(digest: &str) -> bool {
    serde_json::from_value::<Descriptor>(
        json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": 1}),
    )
    .is_ok_and(|descriptor| sha256_of(&descriptor).is_ok())
}

#[test]
fn the_image_for_riscv64_is_found_among_others() {
    let blobs = Blobs::new();
    let layer = blobs.layer(&tar(&[("a", b"x")]), true);
    let amd64 = blobs.image("amd64", std::slice::from_ref(&layer));
    let riscv64 = blobs.image("riscv64", &[layer]);
    let layout = blobs.index(&[amd64, riscv64.clone()]);
    let image = layout.resolve().unwrap();
    assert_eq!(
        format!("sha256:{}", image.digest),
        riscv64["digest"].as_str().unwrap()
    );
    assert_eq!(image.layers.len(), 1);
}

#[test]
fn an_index_in_an_index_is_followed_and_an_endless_one_is_not() {
    let blobs = Blobs::new();
    let image = blobs.image("riscv64", &[]);
    let nested = blobs.nested(&[image]);
    assert!(blobs.index(std::slice::from_ref(&nested)).resolve().is_ok());
    let deep = blobs.nested(&[blobs.nested(&[nested])]);
    assert!(matches!(
        blobs.index(&[deep]).resolve(),
        Err(LayoutError::TooMuch(..))
    ));
}

#[test]
fn a_tag_chooses_among_images() {
    let blobs = Blobs::new();
    let layer = blobs.layer(&tar(&[("a", b"x")]), false);
    let mut one = blobs.image("riscv64", &[]);
    let mut two = blobs.image("riscv64", &[layer]);
    one["annotations"] = json!({REF_NAME: "docker.io/library/alpine:3.22"});
    two["annotations"] = json!({REF_NAME: "3.23"});
    let layout = blobs.index(&[one, two]);
    assert!(matches!(layout.resolve(), Err(LayoutError::Ambiguous(_))));
    let tagged = |tag: &str| {
        Layout {
            tag: Some(tag.into()),
            ..layout.clone()
        }
        .resolve()
    };
    assert_eq!(tagged("3.22").unwrap().layers.len(), 0);
    assert_eq!(tagged("3.23").unwrap().layers.len(), 1);
    assert!(matches!(tagged("3.24"), Err(LayoutError::NoSuchTag(..))));
}

#[test]
fn an_image_for_another_architecture_is_refused_by_name() {
    let blobs = Blobs::new();
    let layout = blobs.index(&[blobs.image("amd64", &[])]);
    let text = layout.resolve().unwrap_err().to_string();
    assert_eq!(text, "the image has no riscv64 variant; it is for linux/amd64");
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused() {
    let blobs = Blobs::new();
    let layer = blobs.layer(&tar(&[("a", b"x")]), false);
    let layout = blobs.index(&[blobs.image("riscv64", std::slice::from_ref(&layer))]);
    let image = layout.resolve().unwrap();
    let path = blobs.path(&layer);
    let mut bytes = fs::read(&path).unwrap();
    bytes[600] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut out = tempfile::tempfile().unwrap();
    let unpacked = layout.unpack(&image.layers[0], MAX_UNPACKED, &mut out);
    assert!(matches!(unpacked, Err(LayoutError::DigestMismatch(_))));
}

#[test]
fn a_manifest_that_is_not_what_its_digest_says_is_refused() {
    let blobs = Blobs::new();
    let image = blobs.image("riscv64", &[]);
    let layout = blobs.index(std::slice::from_ref(&image));
    let path = blobs.path(&image);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"schemaVersion\":2", "\"schemaVersion\":1")).unwrap();
    assert!(matches!(layout.resolve(), Err(LayoutError::DigestMismatch(_))));
}

#[test]
fn a_bomb_is_cut_off_at_the_room_there_is() {
    let blobs = Blobs::new();
    let layer = blobs.layer(&vec![0; 1 << 20], true);
    let layout = blobs.index(&[blobs.image("riscv64", &[layer])]);
    let image = layout.resolve().unwrap();
    let mut out = tempfile::tempfile().unwrap();
    assert!(matches!(
        layout.unpack(&image.layers[0], 4096, &mut out),
        Err(LayoutError::TooMuch(..))
    ));
    assert!(out.stream_position().unwrap() <= 4097);
}

#[test]
fn a_digest_is_hex_and_never_a_path() {
    assert!(digest_form(&format!("sha256:{}", "a".repeat(64))));
    assert!(!digest_form(&format!("sha256:{}", "A".repeat(64))));
    assert!(!digest_form("sha256:../../../../etc/passwd"));
    assert!(!digest_form(&format!("sha256:{}", "/".repeat(64))));
}

#[test]
fn a_layer_of_an_unknown_kind_is_refused_by_its_type() {
    let blobs = Blobs::new();
    let mut layer = blobs.layer(&tar(&[("a", b"x")]), false);
    layer["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+lzma");
    let layout = blobs.index(&[blobs.image("riscv64", &[layer])]);
    assert!(matches!(layout.resolve(), Err(LayoutError::LayerType(kind)) if kind.ends_with("lzma")));
}

#[test]
fn a_layer_is_unpacked_however_it_is_packed() {
    let blobs = Blobs::new();
    let archive = tar(&[("a", b"x")]);
    let layers = [
        blobs.layer(&archive, false),
        blobs.layer(&archive, true),
        blobs.zstd_layer(&archive),
    ];
    let layout = blobs.index(&[blobs.image("riscv64", &layers)]);
    for layer in &layout.resolve().unwrap().layers {
        let mut out = tempfile::tempfile().unwrap();
        let size = layout.unpack(layer, MAX_UNPACKED, &mut out).unwrap();
        assert_eq!(size, archive.len() as u64, "{layer:?}");
    }
}

#[test]
fn a_folder_that_is_no_layout_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout {
        dir: folder.path().to_owned(),
        tag: None,
    };
    assert!(matches!(layout.resolve(), Err(LayoutError::Read(path, _)) if path.ends_with("index.json")));
    fs::create_dir(folder.path().join("index.json")).unwrap();
    assert!(matches!(layout.resolve(), Err(LayoutError::Read(..))));
}
