//! `rvm images`: what a node keeps of registries' images.

use anyhow::{Context, Result};
use jiff::Timestamp;
use rvm_proto::v1::images_client::ImagesClient;
use rvm_proto::v1::pull_image_response::Response;
use rvm_proto::v1::{Image, ListImagesRequest, PruneImagesRequest, PullImageRequest, RemoveImageRequest};
use serde_json::{Value, json};

use crate::args::{Images, ImagesOutput, ImagesVerb};
use crate::connect::Link;
use crate::screen::{Bar, age, columns, printable, progress, say, size};
use crate::signals::unless_interrupted;

type Client = ImagesClient<Link>;

const HEADER: [&str; 6] = ["IMAGE", "DIGEST", "SIZE", "UNPACKED", "LAST USED", "USED BY"];

/// How much of a digest a table shows, besides its kind.
const SHORT: usize = 12;

pub async fn run(mut client: Client, args: &Images) -> Result<()> {
    match &args.verb {
        ImagesVerb::List { output } => {
            let images = client
                .list_images(ListImagesRequest {})
                .await?
                .into_inner()
                .images;
            list(&images, *output)
        }
        ImagesVerb::Pull(images) => {
            for name in &images.names {
                unless_interrupted(pull(&mut client, name)).await?;
            }
            Ok(())
        }
        ImagesVerb::Remove(images) => {
            for name in &images.names {
                let request = RemoveImageRequest { name: name.clone() };
                let freed = client.remove_image(request).await?.into_inner().freed;
                say(&format!("{name} removed, {} freed", size(freed)))?;
            }
            Ok(())
        }
        ImagesVerb::Prune => {
            let pruned = client.prune_images(PruneImagesRequest {}).await?.into_inner();
            for name in &pruned.names {
                say(&format!("{} removed", printable(name)))?;
            }
            Ok(say(&format!("{} freed", size(pruned.freed)))?)
        }
    }
}

fn list(images: &[Image], output: ImagesOutput) -> Result<()> {
    match output {
        ImagesOutput::Json => {
            let images = images.iter().map(object).collect::<Result<Vec<_>>>()?;
            Ok(say(&serde_json::to_string_pretty(&images)?)?)
        }
        ImagesOutput::Name => images
            .iter()
            .try_for_each(|image| Ok(say(&printable(&image.name))?)),
        ImagesOutput::Table if images.is_empty() => {
            progress("No images are kept.");
            Ok(())
        }
        ImagesOutput::Table => {
            let now = Timestamp::now().as_second();
            let rows: Vec<_> = images.iter().map(|image| row(image, now)).collect();
            Ok(say(&columns(HEADER, &rows))?)
        }
    }
}

fn row(image: &Image, now: i64) -> [String; HEADER.len()] {
    let digest = image.digest.strip_prefix("sha256:").unwrap_or(&image.digest);
    [
        image.name.clone(),
        digest.chars().take(SHORT).collect(),
        size(image.size),
        size(image.unpacked),
        age(now - image.last_used),
        image.machines.join(","),
    ]
}

fn object(image: &Image) -> Result<Value> {
    let last_used = Timestamp::from_second(image.last_used).context("the server sent a time that is none")?;
    Ok(json!({
        "name": image.name, "digest": image.digest, "size": image.size, "unpackedSize": image.unpacked,
        "lastUsed": last_used.to_string(), "usedBy": image.machines,
    }))
}

/// Fetches an image and shows how far it is, on a terminal. Who goes away ends it; what has arrived stays with the node.
async fn pull(client: &mut Client, name: &str) -> Result<()> {
    let request = PullImageRequest {
        name: name.to_owned(),
    };
    let mut responses = client.pull_image(request).await?.into_inner();
    let bar = Bar::new()?;
    loop {
        let response = responses.message().await;
        match response?.and_then(|response| response.response) {
            Some(Response::Progress(so_far)) => {
                bar.show(name, so_far.have, so_far.total);
            }
            Some(Response::Pulled(image)) => {
                drop(bar);
                let digest = printable(&image.digest);
                return Ok(say(&format!("{name} pulled ({}, {digest})", size(image.size)))?);
            }
            None => anyhow::bail!("the server has ended the pull of {name}"),
        }
    }
}
