//! What a node's programs are told, from one set of templates for every node.

use super::REGISTRY;

/// Files of a node's folder, with words in them that stand for what differs.
const TEMPLATES: [(&str, &str); 4] = [
    ("containerd.toml", include_str!("containerd.toml")),
    ("network.conflist", include_str!("network.conflist")),
    ("kubelet.yaml", include_str!("kubelet.yaml")),
    ("proxy.yaml", include_str!("proxy.yaml")),
];

/// By what differs from node to node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a> {
    /// Its name in the cluster.
    pub name: &'a str,
    /// Where it is reached.
    pub address: &'a str,
    /// The addresses of its pods.
    pub pods: &'a str,
    /// The image of what holds a pod's namespaces, in the registry.
    pub pause: &'a str,
    /// Where these files are on the node.
    pub folder: &'a str,
}

impl Settings<'_> {
    /// The files, by their names in the folder.
    pub fn files(&self) -> Vec<(String, String)> {
        let mut files: Vec<_> = TEMPLATES
            .iter()
            .map(|(name, text)| ((*name).to_owned(), self.filled(text)))
            .collect();
        // Every registry that a pod names is this one: nothing else can be reached.
        let registry = format!(
            "server = \"http://{REGISTRY}\"\n[host.\"http://{REGISTRY}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
        );
        files.push(("registries/_default/hosts.toml".to_owned(), registry));
        files
    }

    fn filled(&self, text: &str) -> String {
        [
            ("@NODE@", self.name),
            ("@ADDRESS@", self.address),
            ("@PODS@", self.pods),
            ("@PAUSE@", self.pause),
            ("@REGISTRY@", REGISTRY),
            ("@FOLDER@", self.folder),
        ]
        .iter()
        .fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_the_templates_is_left_open() {
        let settings = Settings {
            name: "n7",
            address: "198.18.0.7",
            pods: "198.18.7.0/24",
            pause: "pause:7",
            folder: "/folder",
        };
        let files = settings.files();
        for (name, text) in &files {
            assert!(!text.contains('@'), "{name}: {text}");
        }
        let of = |wanted: &str| &files.iter().find(|(name, _)| name == wanted).unwrap().1;
        assert!(of("kubelet.yaml").contains("address: 198.18.0.7"));
        assert!(of("containerd.toml").contains("\"198.18.0.1:5000/pause:7\""));
        assert!(of("network.conflist").contains("198.18.7.0/24"));
    }
}
