//! Networks of VMIs, in local mode and emulated: addresses, the way outside, each other, and that nothing is left.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Console, Handler, HandlerSetup, Kubectl, Manifest, Tools};
use serde_json::{Value, json};

/// A VMI on the pod's network.
fn networked(name: &str, binding: &str) -> Manifest {
    Manifest::demo().unwrap().named(name).with(|vmi| {
        vmi["spec"]["networks"] = json!([{"name": "default", "pod": {}}]);
        let mut interface = json!({"name": "default"});
        interface[binding] = json!({});
        vmi["spec"]["domain"]["devices"]["interfaces"] = json!([interface]);
    })
}

/// A web server of this host, outside of all guests' networks, which has one page.
fn server() -> SocketAddr {
    // No packet is sent: it only shows which of its addresses this host would use.
    let route = UdpSocket::bind("0.0.0.0:0").unwrap();
    route.connect("192.0.2.1:9").unwrap();
    let listener = TcpListener::bind((route.local_addr().unwrap().ip(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    address
}

/// Answers once all of a request is there: a connection that is closed before it was read is reset.
fn serve(mut guest: TcpStream) {
    let request = BufReader::new(&guest).lines().map_while(Result::ok);
    request.take_while(|line| !line.is_empty()).for_each(drop);
    guest.write_all(b"HTTP/1.0 200 OK\r\n\r\nfrom outside\n").ok();
}

/// Its interface lets one port in.
fn only_port_7(vmi: &mut Value) {
    vmi["spec"]["domain"]["devices"]["interfaces"][0]["ports"] = json!([{"port": 7}]);
}

/// A server of this host that knows one address for every name; nothing where this user may not have the port of such servers.
fn name_server() -> Option<Ipv4Addr> {
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 71, high, low | 1);
    let socket = UdpSocket::bind((address, 53)).ok()?;
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut question) {
            socket.send_to(&named(&question[..count]), from).ok();
        }
    });
    Some(address)
}

/// The answer to one question about a name: 192.0.2.77 where IPv4's address is asked for, else nothing.
fn named(question: &[u8]) -> Vec<u8> {
    let name = question[12..].iter().position(|byte| *byte == 0).unwrap();
    let end = 12 + name + 5;
    let is_v4 = question[end - 4..end] == [0, 1, 0, 1];
    let mut answer = question[..end].to_vec();
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_v4), 0, 0, 0, 0]);
    let address: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77];
    answer.extend(address.iter().filter(|_| is_v4));
    answer
}

/// What a server says to a guest.
fn says(console: &mut Console, server: impl Display, page: &str) -> String {
    console
        .ask(&format!("wget -q -T 60 -O - http://{server}/{page}"))
        .unwrap()
}

/// What another guest says to a guest.
fn guest_says(console: &mut Console, guest: IpAddr) -> String {
    says(console, SocketAddr::new(guest, 7), "name")
}

/// The guest's console, once DHCP has told it what `net.json` promises.
fn with_address(handler: &Handler, name: &str, address: &str) -> Console {
    let viewer = handler.rvm_on_terminal(&["console", name]).unwrap();
    let mut console = Console::at_prompt(viewer, &format!("{name}:~# ")).unwrap();
    eventually("the guest's address", || {
        let seen = console.ask("ip -4 -o addr show eth0 | awk '{print $4}'")?;
        Ok(Look::of((seen == address).then_some(()), || seen))
    })
    .unwrap();
    eventually("the guest's address of IPv6", || {
        let seen = console.ask("ip -6 -o addr show eth0 | grep -c /128")?;
        Ok(Look::of((seen == "1").then_some(()), || seen))
    })
    .unwrap();
    // Each shorter than the terminal's line, where it would be broken.
    let page = format!("mkdir /www && echo from {name} >/www/name");
    console.ask(&page).unwrap();
    console.ask("httpd -p 7 -h /www && httpd -p 8 -h /www").unwrap();
    console
}

/// The addresses by which others reach a VMI.
fn addresses(kubectl: &Kubectl, name: &str) -> Vec<IpAddr> {
    let vmi: Value = kubectl.await_phase(name, "Running").unwrap();
    let interface = &vmi["status"]["interfaces"][0];
    assert_eq!(interface["name"], "default");
    assert_eq!(interface["ipAddress"], interface["ipAddresses"][0]);
    let addresses = interface["ipAddresses"].as_array().unwrap().iter();
    addresses
        .map(|address| address.as_str().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn guests_get_addresses_reach_outside_and_each_other_also_while_no_handler_is_there() {
    let tools = Tools::open().unwrap();
    let network = ["--pod-network", "10.199.16.0/24"];
    let mut handler = HandlerSetup::local().with(&network).start(&tools).unwrap();
    let outside = server();
    let kubectl = handler.kubectl().unwrap();
    kubectl
        .apply(&[
            networked("behind", "masquerade").with(only_port_7),
            networked("beside", "bridge"),
        ])
        .unwrap();
    let (behind, beside) = (addresses(&kubectl, "behind"), addresses(&kubectl, "beside"));

    let mut first = with_address(&handler, "behind", "10.0.2.2/24");
    let mut second = with_address(&handler, "beside", &format!("{}/24", beside[0]));
    assert_eq!(
        first.ask("cat /etc/resolv.conf").unwrap(),
        "nameserver 169.254.71.53"
    );
    assert_eq!(says(&mut first, outside, ""), "from outside");
    assert_eq!(says(&mut second, outside, ""), "from outside");
    assert_eq!(guest_says(&mut first, beside[0]), "from beside");
    assert_eq!(guest_says(&mut second, behind[0]), "from behind");
    assert_eq!(guest_says(&mut first, beside[1]), "from beside");
    assert_eq!(guest_says(&mut second, behind[1]), "from behind");
    let refused = says(&mut second, SocketAddr::new(behind[0], 8), "name");
    assert!(refused.contains("refused"), "port 8 is let in: {refused}");

    handler.kill().unwrap();
    handler.start().unwrap();
    let kubectl = handler.kubectl().unwrap();
    let viewer = handler.rvm_on_terminal(&["console", "behind"]).unwrap();
    let mut again = Console::at_prompt(viewer, "behind:~# ").unwrap();
    assert_eq!(guest_says(&mut again, beside[0]), "from beside");
    assert_eq!(addresses(&kubectl, "behind"), behind);

    kubectl
        .ok(&["delete", "vmi", "behind", "beside", "--timeout=60s"])
        .unwrap();
    handler.terminate().unwrap();
    nothing_left(&handler);
}

/// Waits until nobody keeps networks any more.
fn nothing_left(handler: &Handler) {
    let lock = std::fs::File::open(handler.run_dir().join("network.lock")).unwrap();
    eventually("the end of the networks", || {
        Ok(Look::of(lock.try_lock().ok(), || "they are kept".to_owned()))
    })
    .unwrap();
}

#[test]
fn a_guest_of_an_ordinary_user_reaches_outside_knows_names_and_is_reached_by_any_port() {
    let tools = Tools::open().unwrap();
    let Some(names) = name_server() else {
        eprintln!("skipped: this user may not serve names");
        return;
    };
    let resolver = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(resolver.path(), format!("nameserver {names}\n")).unwrap();
    let network = ["--pod-network", "10.199.18.0/24"];
    let setup = HandlerSetup::local().with(&network).unprivileged(resolver.path());
    let mut handler = setup.start(&tools).unwrap();
    let (outside, kubectl) = (server(), handler.kubectl().unwrap());
    let guest = Manifest::network().unwrap().named("free").with(|vmi| {
        let domain = &mut vmi["spec"]["domain"];
        domain["cpu"] = json!({"cores": 2});
        domain["devices"]["networkInterfaceMultiqueue"] = json!(true);
        domain["devices"]["interfaces"][0]["macAddress"] = json!("02:11:22:33:44:55");
    });
    kubectl.apply(&[guest]).unwrap();
    let vmi = kubectl.await_phase("free", "Running").unwrap();
    assert_eq!(vmi["status"]["interfaces"][0]["queueCount"], 2);
    assert_eq!(vmi["status"]["interfaces"][0]["mac"], "02:11:22:33:44:55");

    let mut console = with_address(&handler, "free", "10.0.2.2/24");
    let of_link = console
        .ask("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu")
        .unwrap();
    let seen: Vec<&str> = of_link.split_whitespace().collect();
    assert_eq!(seen, ["02:11:22:33:44:55", "1500"]);
    assert_eq!(
        console
            .ask("ls -d /sys/class/net/eth0/queues/rx-* | wc -l")
            .unwrap(),
        "2"
    );
    assert_eq!(says(&mut console, outside, ""), "from outside");
    let known = console.ask("nslookup -type=a any.example").unwrap();
    assert!(known.contains("192.0.2.77"), "{known}");

    let request = "GET /name HTTP/1.0\r\n\r\n";
    // Not what the manifest lets in.
    let forwarded = handler.feed_rvm(&["port-forward", "--stdio", "free", "7"], request);
    let page = forwarded.unwrap().ok().unwrap();
    assert!(page.ends_with("from free\n"), "{page}");

    kubectl.ok(&["delete", "vmi", "free", "--timeout=60s"]).unwrap();
    handler.terminate().unwrap();
    nothing_left(&handler);
}

/// The spec of a policy, which lets only friends speak to the machine `keeper`.
fn only_friends() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "only-friends"},
        "spec": {
            "podSelector": {"matchLabels": {"vm.kubevirt.io/name": "keeper"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}], "ports": [{"port": 7}]}],
        },
    })
}

/// Waits until a guest no longer hears anything from another.
fn kept_away(console: &mut Console, guest: IpAddr) {
    let server = SocketAddr::new(guest, 7);
    let ask = format!("wget -q -T 5 -O - http://{server}/name || echo nothing");
    eventually("the policy", || {
        let seen = console.ask(&ask)?;
        Ok(Look::of(seen.ends_with("nothing").then_some(()), || seen))
    })
    .unwrap();
}

#[test]
fn policies_and_labels_keep_guests_apart_and_let_them_together_while_they_run() {
    let tools = Tools::open().unwrap();
    let network = ["--pod-network", "10.199.17.0/24"];
    let mut handler = HandlerSetup::local().with(&network).start(&tools).unwrap();
    let kubectl = handler.kubectl().unwrap();
    let unkept = only_friends().to_string().replace(":7}", ":\"web\"}");
    let refused = kubectl.feed(&["apply", "-f", "-"], &unkept).unwrap();
    let refused = refused.error_text();
    assert!(refused.contains("rvm supports numbers only"), "{refused}");
    kubectl
        .apply(&[
            networked("keeper", "masquerade"),
            // It names no network, and so gets this one.
            Manifest::demo().unwrap().named("caller"),
        ])
        .unwrap();
    let keeper = addresses(&kubectl, "keeper");
    let _serving = with_address(&handler, "keeper", "10.0.2.2/24");
    let mut caller = with_address(&handler, "caller", "10.0.2.2/24");
    assert_eq!(guest_says(&mut caller, keeper[0]), "from keeper");

    let applied = kubectl.feed(&["apply", "-f", "-"], &only_friends().to_string());
    applied.unwrap().ok().unwrap();
    kept_away(&mut caller, keeper[0]);
    assert!(
        kubectl
            .ok(&["get", "netpol"])
            .unwrap()
            .contains("vm.kubevirt.io/name=keeper")
    );
    kubectl.ok(&["label", "vmi", "caller", "role=friend"]).unwrap();
    assert_eq!(guest_says(&mut caller, keeper[0]), "from keeper");
    kubectl.ok(&["label", "vmi", "caller", "role-"]).unwrap();
    kept_away(&mut caller, keeper[0]);

    // What was changed while nobody was there to see it holds, too.
    handler.kill().unwrap();
    handler.start().unwrap();
    let kubectl = handler.kubectl().unwrap();
    let mut caller = Console::at_prompt(
        handler.rvm_on_terminal(&["console", "caller"]).unwrap(),
        "caller:~# ",
    )
    .unwrap();
    kept_away(&mut caller, keeper[0]);
    kubectl.ok(&["delete", "netpol", "only-friends"]).unwrap();
    assert_eq!(guest_says(&mut caller, keeper[0]), "from keeper");
}
