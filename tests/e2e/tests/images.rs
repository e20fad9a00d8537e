//! Our images: what is in them runs as pods of strangers run, without a right that they do not need.

use rvm_guests::{Cache, Kernel, tiny};
use rvm_harness::patience::Look;
use rvm_harness::{Cluster, Tools, eventually, images};

/// A machine in a pod: an ordinary user, no capability, no way to more of them, a root that cannot be written to.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: machine }
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  securityContext: { runAsUser: 107, runAsGroup: 107, runAsNonRoot: true, seccompProfile: { type: RuntimeDefault } }
  containers:
    - name: emulated
      image: 198.18.0.1:5000/rvmm-qemu:test
      args: [--kernel, /guest/Image, --initrd, /guest/tiny, --memory, 256M, --cmdline, "console=ttyS0 quiet rvm.run=poweroff"]
      securityContext: &least { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
      volumeMounts: [{ name: guest, mountPath: /guest, readOnly: true }, { name: tmp, mountPath: /tmp }]
    - name: rvmm
      image: 198.18.0.1:5000/rvmm:test
      args: [--version]
      securityContext: *least
    - name: nft
      image: 198.18.0.1:5000/rvm-handler:test
      command: [nft, --version]
      securityContext: *least
  volumes:
    - { name: guest, hostPath: { path: "@GUEST@" } }
    - { name: tmp, emptyDir: {} }
"#;

#[test]
fn a_machine_runs_in_a_pod_of_our_image_as_a_user_without_rights() {
    let tools = Tools::open().unwrap();
    let cache = Cache::open().unwrap();
    let cluster = Cluster::start_bare_on_node(&tools).unwrap();
    let (kubectl, node) = (cluster.kubectl(), cluster.node().unwrap());
    images::push(&tools, node, &["rvm-handler", "rvmm", "rvmm-qemu"]).unwrap();
    let (kernel, tiny) = (
        Kernel::debian(&cache).unwrap().image,
        tiny::build(&cache).unwrap(),
    );
    let guest = node.put("guest", &[("Image", &kernel), ("tiny", &tiny)]).unwrap();
    let pod = POD.replace("@GUEST@", &guest.display().to_string());
    kubectl.feed(&["apply", "-f", "-"], &pod).unwrap().ok().unwrap();

    let story = || {
        let said = kubectl
            .run(&["describe", "pod", "machine"])
            .map(|said| said.text());
        let logs = kubectl.run(&["logs", "machine", "--all-containers", "--tail=30"]);
        format!("{said:?}\n{:?}", logs.map(|said| said.text()))
    };
    let ended = eventually("end of the pod", || {
        let pod = kubectl.get(&["pod", "machine"])?;
        let phase = pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
        let over = phase == "Succeeded" || phase == "Failed";
        Ok(Look::of(over.then_some(phase), story))
    });
    assert_eq!(ended.unwrap(), "Succeeded", "{}", story());
    let logs = |container: &str| kubectl.ok(&["logs", "machine", "-c", container]).unwrap();
    assert!(logs("emulated").contains("GUEST-UP"), "{}", logs("emulated"));
    assert!(logs("rvmm").starts_with("rvmm 0."), "{}", logs("rvmm"));
    assert!(logs("nft").starts_with("nftables v"), "{}", logs("nft"));
}
