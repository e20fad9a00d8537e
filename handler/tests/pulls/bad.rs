//! Images that cannot be used, out of a real registry: each is refused in one condition and one event that say why.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::{IMAGE, Place};
use crate::layouts::{Image, Packed, link, noise, tar};
use crate::node::manifest;

/// What is said of an image when it is to be a machine's disk.
fn as_disk(image: &Image<'_>, path: Option<&str>) -> String {
    let place = Place::new();
    place.push(image);
    let mut vmi = manifest("vm", "docker.io/library/alpine:3.23");
    let disk = json!({"name": "data", "containerDisk": {"image": IMAGE, "path": path}});
    vmi["spec"]["volumes"].as_array_mut().unwrap().push(disk);
    vmi["spec"]["domain"]["devices"]["disks"] = json!([{"name": "data", "disk": {"bus": "virtio"}}]);
    let said = place.refusal_of(vmi);
    let beginning = format!("volume 'data' cannot be made: image '{IMAGE}': ");
    said.strip_prefix(&beginning).unwrap_or(&said).to_owned()
}

/// The header of a qcow2 disk of version 3, of one cluster, that names nothing else.
fn qcow2() -> Vec<u8> {
    let mut header = vec![0; 65536];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    header[20..24].copy_from_slice(&16_u32.to_be_bytes());
    header[100..104].copy_from_slice(&104_u32.to_be_bytes());
    header
}

#[test]
fn an_image_without_a_disk_or_with_two_is_refused_as_kubevirt_does() {
    let without = as_disk(&Image::of(&[("other/a.img", b"x")]), None);
    assert_eq!(without, "no file found in folder /disk");
    let two = as_disk(&Image::of(&[("disk/a.img", b"x"), ("disk/b.img", b"y")]), None);
    assert_eq!(two, "more than one file found in folder /disk");
}

#[test]
fn a_disk_that_is_not_at_its_path_or_leads_out_of_the_image_is_not_found() {
    let missing = as_disk(&Image::of(&[("disk/a.img", b"x")]), Some("/disk/b.img"));
    assert_eq!(missing, "the image has no file '/disk/b.img'");
    let out = Image {
        layers: vec![link(
            tar::EntryType::Symlink,
            "disk/a.img",
            "../../../../etc/passwd",
        )],
        ..Image::of(&[])
    };
    assert_eq!(as_disk(&out, None), "the image has no file 'disk/a.img'");
}

#[test]
fn a_qcow2_disk_that_is_cut_off_or_stands_on_another_file_is_refused() {
    let cut = &qcow2()[..100];
    let said = as_disk(&Image::of(&[("disk/a.qcow2", cut)]), None);
    assert_eq!(said, "the qcow2 disk is truncated");
    let mut backed = qcow2();
    backed[8..20].copy_from_slice(b"\0\0\0\0\0\0\x02\0\0\0\0\x0b");
    backed[512..523].copy_from_slice(b"/etc/shadow");
    let said = as_disk(&Image::of(&[("disk/a.qcow2", &backed)]), None);
    assert_eq!(
        said,
        "the qcow2 disk has a backing file; an image must hold all of its disk"
    );
}

#[test]
fn a_layer_that_is_no_archive_or_cut_off_is_refused() {
    let place = Place::new();
    place.push(&Image {
        layers: vec![noise(4096)],
        ..Image::of(&[])
    });
    let said = place.refusal(IMAGE);
    let expected = "layer 0 of the image cannot be used: it is not a whole tar archive: ";
    assert!(said.contains(expected), "{said}");

    let place = Place::new();
    let whole = tar(&[("data", &noise(4096))]);
    place.push(&Image {
        layers: vec![whole[..2048].to_vec()],
        ..Image::of(&[])
    });
    let said = place.refusal(IMAGE);
    assert!(said.contains(expected), "{said}");

    let place = Place::new();
    let layer = place.push(&Image {
        packed: Packed::As("layer.v1.tar+gzip", b"\x1f\x8b\x08 and no more".to_vec()),
        ..Image::of(&[])
    });
    let said = place.refusal(IMAGE);
    let expected = format!("layer {} cannot be unpacked: ", layer[0]);
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn a_layer_packed_in_an_unknown_way_is_refused_by_its_type() {
    let place = Place::new();
    place.push(&Image {
        packed: Packed::As("layer.v1.tar+lzma", b"?".to_vec()),
        ..Image::of(&[])
    });
    let said = place.refusal(IMAGE);
    let expected = "a layer of type 'application/vnd.oci.image.layer.v1.tar+lzma' is not supported; \
                    tar, tar+gzip and tar+zstd are";
    assert!(said.ends_with(expected), "{said}");
}

#[test]
fn links_in_a_circle_are_refused() {
    let place = Place::new();
    place.push(&Image {
        layers: vec![
            link(tar::EntryType::Symlink, "a", "b"),
            link(tar::EntryType::Symlink, "b", "a"),
            tar(&[("a/x", b"x")]),
        ],
        ..Image::of(&[])
    });
    let said = place.refusal(IMAGE);
    let expected = "layer 2 of the image cannot be used: a path in it leads over more than 40 symbolic links";
    assert!(said.ends_with(expected), "{said}");
}

/// Long: 4 GiB are unpacked before it is seen.
#[test]
fn full_a_gzip_bomb_is_cut_off() {
    let mut member = GzEncoder::new(Vec::new(), Compression::fast());
    member.write_all(&vec![0; 64 << 20]).unwrap();
    let bomb = member.finish().unwrap().repeat(65);
    let place = Place::new();
    place.push(&Image {
        packed: Packed::As("layer.v1.tar+gzip", bomb),
        ..Image::of(&[])
    });
    let said = place.refusal(IMAGE);
    assert!(
        said.ends_with("has more unpacked bytes than the 4294967296 that are allowed"),
        "{said}"
    );
}

#[test]
fn no_such_image_is_said_so() {
    let place = Place::new();
    let message = place.refusal(IMAGE);
    assert_eq!(
        message,
        format!(
            "Failed to pull image \"{IMAGE}\": the registry '127.0.0.1:{}' has no image 'team/demo:1'",
            place.wire.port()
        )
    );
}

#[test]
fn an_image_for_another_architecture_is_said_to_have_no_riscv64_variant() {
    let place = Place::new();
    place.push(&Image {
        architecture: "amd64",
        ..Image::of(&[("disk/a.img", b"x")])
    });
    let message = place.refusal(IMAGE);
    assert!(
        message.ends_with("the image has no riscv64 variant; it is for linux/amd64"),
        "{message}"
    );
}

#[test]
fn bytes_that_are_not_what_their_digest_says_are_refused_and_forgotten() {
    let place = Place::new();
    let layers = place.push(&Image::of(&[("data", &noise(9000))]));
    let blob = place.registry.blob(&layers[0]);
    let whole = fs::read(&blob).unwrap();
    let mut wrong = whole.clone();
    wrong[4000] ^= 1;
    fs::write(&blob, wrong).unwrap();
    let message = place.refusal(IMAGE);
    assert!(
        message.ends_with(&format!("blob {} does not match its digest or size", layers[0])),
        "{message}"
    );
    assert_eq!(place.arrived(&layers[0]), 0);
}

#[test]
fn layers_that_lead_out_of_the_image_are_refused() {
    let place = Place::new();
    place.push(&Image::of(&[("../../etc/passwd", b"x")]));
    let message = place.refusal(IMAGE);
    assert!(
        message.contains(
            ": layer 0 of the image cannot be used: '../../etc/passwd' in it is no path below a root"
        ),
        "{message}"
    );
}

#[test]
fn hard_links_out_of_the_image_are_refused() {
    let place = Place::new();
    place.push(&Image {
        layers: vec![link(tar::EntryType::Link, "a", "../../etc/shadow")],
        ..Image::of(&[])
    });
    let message = place.refusal(IMAGE);
    assert!(
        message.ends_with(
            "layer 0 of the image cannot be used: 'a' in it has a size, owner, device or link that cannot be"
        ),
        "{message}"
    );
}
