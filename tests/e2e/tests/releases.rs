//! The chart of one machine with its web console: what a release of it is, and that it runs.

use rvm_e2e::firmware::{self, OWN, OWN_PATH};
use rvm_e2e::installed::Installed;
use rvm_guests::{Cache, efi};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Console, Helm, Tools};
use rvm_outer::shell::PATIENCE;

/// The release, and so its machine.
const NAME: &str = "web";

#[test]
fn the_chart_of_a_machine_is_in_order_and_each_of_its_values_counts() {
    let tools = Tools::open().unwrap();
    let helm = Helm::alone(&tools).unwrap();
    let chart = helm.chart("vm");
    let linted = helm
        .ok(&["lint", "--strict", &chart, "--set", "images.console=c"])
        .unwrap();
    assert!(linted.contains("0 chart(s) failed"), "{linted}");
    let run = |settings: &[&str]| {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let words: Vec<&str> = ["template", NAME, &chart].into_iter().chain(settings).collect();
        helm.run(&words).unwrap()
    };
    let plain = run(&["images.console=c"]).ok().unwrap();
    for word in [
        "image: docker.io/library/alpine:3.23",
        "rvm/root-filesystem: data",
        "sockets: 2",
        "guest: 2048Mi",
        "cpu: \"2\"\n            memory: 2048Mi",
        "type: LoadBalancer",
        "port: 8080",
    ] {
        assert!(plain.contains(word), "no {word}: {plain}");
    }
    for word in ["features:", "firmware:", "rvm/launcher-image", "imagePullSecret"] {
        assert!(!plain.contains(word), "{word}: {plain}");
    }
    let set = run(&[
        "images.console=c",
        "images.launcher=l:1",
        "images.data=d:1",
        "images.pullSecrets[0].name=login",
        "kernel.image=k:1",
        "kernel.path=/boot/Image",
        "kernel.args=quiet",
        "cpu.count=4",
        "cpu.features=v\\,zbb=off\\,zba=true",
        "memory=512",
        "service.type=NodePort",
        "service.port=80",
        "runStrategy=Manual",
    ]);
    let set = set.ok().unwrap();
    for word in [
        "rvm/launcher-image: l:1",
        "image: d:1\n            imagePullSecret: login",
        "kernelPath: /boot/Image",
        "kernelArgs: \"quiet\"",
        "- name: \"zbb\"\n              policy: disable",
        "- name: \"zba\"\n              policy: require",
        "sockets: 4",
        "guest: 512Mi",
        "port: 80\n",
        "runStrategy: Manual",
    ] {
        assert!(set.contains(word), "no {word}: {set}");
    }
    let disk = run(&["images.console=c", "bios=uboot"]).ok().unwrap();
    assert!(disk.contains("rvm/firmware: uboot") && !disk.contains("rvm/root-filesystem"));
    let own = run(&[
        "images.console=c",
        "firmware.image=f:1",
        "firmware.path=/u-boot.bin",
        "images.pullSecrets[0].name=login",
    ]);
    let own = own.ok().unwrap();
    for word in [
        "rvm/firmware: kernelBoot",
        "image: f:1\n              kernelPath: /u-boot.bin\n              imagePullSecret: login",
    ] {
        assert!(own.contains(word), "no {word}: {own}");
    }
    assert!(!own.contains("rvm/root-filesystem"), "{own}");
    for (settings, why) in [
        (&["images.console=c", "bios=seabios"][..], "bios"),
        (
            &["images.console=c", "bios=edk2", "kernel.image=k"],
            "bios excludes kernel.image",
        ),
        (
            &["images.console=c", "bios=edk2", "firmware.image=f"],
            "exclude each other",
        ),
        (
            &["images.console=c", "firmware.image=f", "kernel.args=quiet"],
            "firmware.image excludes kernel.image",
        ),
        (
            &["images.console=c", "firmware.image=f", "firmware.path=f"],
            "firmware",
        ),
        (&["images.console=c", "memory=lots"], "memory"),
        (&[], "images.console is not set"),
    ] {
        let refused = run(settings);
        assert!(
            refused.status() != Some(0) && refused.error_text().contains(why),
            "{settings:?}"
        );
    }
}

#[test]
fn full_a_release_is_a_machine_with_its_console_and_goes_with_it() {
    let installed = Installed::start(&[]).unwrap();
    let kubectl = installed.kubectl();
    let own = |name: &str| format!("198.18.0.1:5000/{name}:test");
    let settings = [
        format!("images.launcher={}", own("rvmm-qemu")),
        format!("images.console={}", own("rvm-api")),
        "cpu.count=1".to_owned(),
        "cpu.features=zbb=off\\,zba".to_owned(),
        "memory=256".to_owned(),
        "kernel.args=rvm.mark=here".to_owned(),
        "service.type=NodePort".to_owned(),
    ];
    let chart = installed.helm().chart("vm");
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let words = ["install", NAME, &chart, "--wait", "--timeout", "4m"];
    let words: Vec<&str> = words.into_iter().chain(settings).collect();
    let told = installed.helm().ok(&words);
    let told = told.unwrap_or_else(|error| panic!("{error:#}\n{}", installed.story()));
    assert!(
        told.contains("/#/vm/default/web") && told.contains("create token web-console"),
        "{told}"
    );
    let vmi = eventually("the machine's instance", || {
        let said = kubectl.run(&["get", "vmi", NAME, "-o", "name"])?;
        Ok(Look::of((said.status() == Some(0)).then_some(()), || {
            said.error_text()
        }))
    })
    .and_then(|()| installed.await_running(NAME))
    .unwrap();
    let requests = &vmi["spec"]["domain"]["resources"]["requests"];
    assert_eq!(
        (requests["cpu"].as_str(), requests["memory"].as_str()),
        (Some("1"), Some("256Mi"))
    );
    let pod = installed.pod().unwrap();
    assert_eq!(pod["spec"]["containers"][0]["image"], own("rvmm-qemu"));

    let viewer = kubectl.on_terminal(&["rvm", "console", NAME], &[]).unwrap();
    let mut console = Console::at_prompt(viewer, "web:~# ").unwrap();
    let isa = console.ask("grep -m1 isa /proc/cpuinfo").unwrap();
    assert!(isa.contains("_zba") && !isa.contains("_zbb"), "{isa}");
    let line = console.ask("cat /proc/cmdline").unwrap();
    assert!(line.contains("rvm.mark=here"), "{line}");
    console.leave().unwrap();

    // Its page, and a token that is good for this machine alone.
    let page = "/api/v1/namespaces/default/services/https:web-console:https/proxy/";
    let page = kubectl.ok(&["get", "--raw", page]).unwrap();
    assert!(page.contains("<title>"), "{page}");
    let account = "--as=system:serviceaccount:default:web-console";
    let may = |verb: &str, what: &str, more: &[&str]| {
        let words = [&["auth", "can-i", verb, what, account], more].concat();
        kubectl.run(&words).unwrap().text().trim() == "yes"
    };
    assert!(may("get", "virtualmachineinstances.kubevirt.io/web", &[]));
    assert!(may(
        "get",
        "virtualmachineinstances.subresources.kubevirt.io/web",
        &["--subresource=console"]
    ));
    assert!(may(
        "update",
        "virtualmachines.subresources.kubevirt.io/web",
        &["--subresource=restart"]
    ));
    assert!(!may("get", "virtualmachineinstances.kubevirt.io/other", &[]));
    assert!(!may("get", "secrets", &[]));

    installed
        .helm()
        .ok(&["uninstall", NAME, "--wait", "--timeout", "3m"])
        .unwrap();
    installed.await_no_pods().unwrap();
    let left = kubectl
        .ok(&["get", "vm,vmi,deploy,role,rolebinding", "-o", "name"])
        .unwrap();
    assert_eq!(left.trim(), "");
}

#[test]
fn full_a_release_boots_its_disk_by_a_firmware_of_its_author_s() {
    let installed = Installed::start(&[]).unwrap();
    let (node, folder) = (installed.cluster().node().unwrap(), tempfile::tempdir().unwrap());
    firmware::own_image(folder.path()).unwrap();
    node.push(folder.path(), "own/firmware:1").unwrap();
    let disk = efi::image(&Cache::open().unwrap()).unwrap();
    node.push(&disk, "own/disk:1").unwrap();
    let own = |name: &str| format!("198.18.0.1:5000/{name}");
    let settings = [
        format!("images.console={}", own("rvm-api:test")),
        format!("images.data={}", own("own/disk:1")),
        format!("firmware.image={}", own("own/firmware:1")),
        format!("firmware.path={OWN_PATH}"),
        "cpu.count=1".to_owned(),
        "memory=512".to_owned(),
        "service.type=ClusterIP".to_owned(),
    ];
    let chart = installed.helm().chart("vm");
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let words = ["install", NAME, &chart];
    let words: Vec<&str> = words.into_iter().chain(settings).collect();
    installed.helm().ok(&words).unwrap();
    let kubectl = installed.kubectl();
    eventually("the machine's instance", || {
        let said = kubectl.run(&["get", "vmi", NAME, "-o", "name"])?;
        Ok(Look::of((said.status() == Some(0)).then_some(()), || {
            said.error_text()
        }))
    })
    .and_then(|()| installed.await_running(NAME))
    .unwrap();
    let mut viewer = kubectl.on_terminal(&["rvm", "console", NAME], &[]).unwrap();
    viewer.expect(OWN, PATIENCE).unwrap();
    let mut console = Console::at_prompt(viewer, "guest# ").unwrap();
    let listed = console.ask("ls /sys/firmware/efi").unwrap();
    assert!(listed.contains("systab"), "{listed}");
    console.leave().unwrap();
    installed
        .helm()
        .ok(&["uninstall", NAME, "--wait", "--timeout", "3m"])
        .unwrap();
    installed.await_no_pods().unwrap();
}
