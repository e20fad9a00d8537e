//! Networks of VMIs, in local mode and emulated: addresses, the way outside, each other, and that nothing is left.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

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
    let serve = format!("mkdir /www && echo from {name} >/www/name && httpd -p 7 -h /www");
    console.ask(&serve).unwrap();
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
        .apply(&[networked("behind", "masquerade"), networked("beside", "bridge")])
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
    let lock = std::fs::File::open(handler.run_dir().join("network.lock")).unwrap();
    eventually("the end of the networks", || {
        Ok(Look::of(lock.try_lock().ok(), || "they are kept".to_owned()))
    })
    .unwrap();
}
