//! A real browser, by WebDriver: headless Chromium, which does what a user does and shows what a user sees.
//!
//! ```text
//!   test ──JSON over HTTP, loopback──► chromedriver ──► chromium     one session each [`Page`]: its own storage, its own window
//! ```
//!
//! All of it is in a process namespace of its own, so nothing of it outlives the test.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rvm_guests::{Cache, axe};
use rvm_harness::eventually;
use rvm_harness::patience::Look;
use rvm_harness::process::Process;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What WebDriver calls an element in an answer.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Where distributions put the programs.
const FOLDERS: [&str; 2] = ["/usr/bin", "/usr/local/bin"];
/// Has the driver's whole family end with it.
const BY: [&str; 7] = [
    "unshare",
    "--user",
    "--map-root-user",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];
/// Collects what a page was not allowed to do, from before its first script.
const WATCHED: &str = "window.refusedByPolicy = []; \
     addEventListener('securitypolicyviolation', (e) => refusedByPolicy.push(e.violatedDirective + ' ' + e.blockedURI));";

/// The widths at which pages are looked at: a phone's and a desk's.
pub const WIDTHS: [(&str, u32, u32); 2] = [("phone", 390, 844), ("desktop", 1440, 900)];

/// The driver.
#[derive(Debug)]
pub struct Browser {
    _driver: Process,
    agent: ureq::Agent,
    base: String,
    folder: TempDir,
}

/// A window of a browser of its own.
#[derive(Debug)]
pub struct Page {
    browser: Rc<Browser>,
    session: String,
}

// === impl Browser ===

impl Browser {
    /// Starts the driver.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start() -> Result<Rc<Self>> {
        let places = FOLDERS
            .iter()
            .map(|folder| Path::new(folder).join("chromedriver"));
        let program = places.clone().find(|place| place.is_file());
        let program = program.context("there is no chromedriver (package chromium-driver)")?;
        let folder = tempfile::Builder::new().prefix("rvm-web-").tempdir()?;
        let log = folder.path().join("driver.log");
        let mut driver = Process::start_by(&BY.map(str::to_owned), &program, &log, |command| {
            command.arg("--port=0").env("HOME", folder.path());
        })?;
        let port = eventually("chromedriver", || {
            driver.must_live()?;
            let said = driver.said();
            let port = said.split("started successfully on port ").nth(1);
            let port = port.and_then(|rest| rest.split('.').next()?.parse::<u16>().ok());
            Ok(Look::of(port, || said))
        })?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None);
        Ok(Rc::new(Self {
            _driver: driver,
            agent: config.build().into(),
            base: format!("http://127.0.0.1:{port}/session"),
            folder,
        }))
    }

    /// Opens a window.
    ///
    /// # Errors
    /// Chromium does not start.
    pub fn page(self: &Rc<Self>) -> Result<Page> {
        let arguments = [
            "--headless=new",
            // We may be root, and are in a namespace of our own.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            // rvm-api's certificate is signed by an authority of its own.
            "acceptInsecureCerts": true,
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let made = self.call("POST", "", Some(&wanted))?;
        let session = made["sessionId"].as_str().context("no session")?.to_owned();
        let page = Page {
            browser: Rc::clone(self),
            session,
        };
        page.devtools(
            "Page.addScriptToEvaluateOnNewDocument",
            &json!({"source": WATCHED}),
        )?;
        page.size(WIDTHS[1])?;
        Ok(page)
    }

    /// A folder that is there as long as the driver.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        let mut answer = match (method, body) {
            ("DELETE", _) => self.agent.delete(&url).call()?,
            (_, Some(body)) => self.agent.post(&url).send_json(body)?,
            (_, None) => self.agent.get(&url).call()?,
        };
        let said: Value = answer.body_mut().with_config().limit(64 << 20).read_json()?;
        let value = &said["value"];
        if let Some(error) = value["error"].as_str() {
            bail!(
                "{path}: {error}: {}",
                value["message"].as_str().unwrap_or_default()
            );
        }
        Ok(value.clone())
    }
}

// === impl Page ===

impl Page {
    fn call(&self, path: &str, body: &Value) -> Result<Value> {
        self.browser
            .call("POST", &format!("/{}{path}", self.session), Some(body))
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        self.call(
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        )
    }

    /// Goes to an address.
    ///
    /// # Errors
    /// The driver's.
    pub fn go(&self, address: &str) -> Result<()> {
        self.call("/url", &json!({"url": address})).map(drop)
    }

    /// Loads the page anew.
    ///
    /// # Errors
    /// The driver's.
    pub fn reload(&self) -> Result<()> {
        self.call("/refresh", &json!({})).map(drop)
    }

    /// Gives the window a size.
    ///
    /// # Errors
    /// The driver's.
    pub fn size(&self, (name, width, height): (&str, u32, u32)) -> Result<()> {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": name == "phone"});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics)
            .map(drop)
    }

    /// Has the system prefer `light` or `dark`.
    ///
    /// # Errors
    /// The driver's.
    pub fn prefer(&self, scheme: &str) -> Result<()> {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &features).map(drop)
    }

    /// What a script returns.
    ///
    /// # Errors
    /// It throws.
    pub fn script(&self, script: &str) -> Result<Value> {
        self.call("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// The text of what this selects; empty where there is none.
    ///
    /// # Errors
    /// The driver's.
    pub fn text(&self, selector: &str) -> Result<String> {
        let found = self.script(&format!(
            "const found = [...document.querySelectorAll({selector:?})].filter((e) => e.checkVisibility()); \
             return found.map((e) => e.innerText).join('\\n');"
        ))?;
        Ok(found.as_str().unwrap_or_default().replace('\u{a0}', " "))
    }

    /// Waits until what this selects says that.
    ///
    /// # Errors
    /// It never does.
    pub fn expect(&self, selector: &str, text: &str) -> Result<()> {
        eventually(&format!("{text:?} in {selector}"), || {
            let said = self.text(selector)?;
            Ok(Look::of(said.contains(text).then_some(()), || said))
        })
    }

    /// What the terminal shows, once it shows all of these.
    ///
    /// # Errors
    /// It never does.
    pub fn expect_shown(&self, texts: &[&str]) -> Result<String> {
        eventually(&format!("{texts:?} in the terminal"), || {
            let shown = self.text(".xterm-rows")?;
            let all = texts.iter().all(|text| shown.contains(text));
            Ok(Look::of(all.then(|| shown.clone()), || shown))
        })
    }

    fn element(&self, selector: &str) -> Result<String> {
        let wanted = json!({"using": "css selector", "value": selector});
        let found = self.call("/element", &wanted)?;
        let id = found[ELEMENT].as_str().context("no element")?;
        Ok(id.to_owned())
    }

    /// Clicks on what this selects, once it is there.
    ///
    /// # Errors
    /// It is not there, or is not to be clicked on.
    pub fn click(&self, selector: &str) -> Result<()> {
        eventually(&format!("{selector} to click on"), || {
            let clicked = self.element(selector);
            let clicked = clicked.and_then(|id| self.call(&format!("/element/{id}/click"), &json!({})));
            Ok(match clicked {
                Ok(_) => Look::Here(()),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })
    }

    /// Clicks on the button with this name.
    ///
    /// # Errors
    /// As for [`Page::click`].
    pub fn press(&self, name: &str) -> Result<()> {
        eventually(&format!("button {name:?}"), || {
            let wanted = json!({"using": "xpath", "value": format!("//button[normalize-space()='{name}' and not(@hidden)]")});
            let found = self.call("/elements", &wanted)?;
            // A dialog's, where there is one, stands last.
            let id = found.as_array().and_then(|all| all.last()?[ELEMENT].as_str());
            let Some(id) = id else {
                return Ok(Look::NotYet("none".to_owned()));
            };
            Ok(match self.call(&format!("/element/{id}/click"), &json!({})) {
                Ok(_) => Look::Here(()),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })
    }

    /// Presses keys, one after the other, wherever the keyboard is. WebDriver's letters stand for those that are none.
    ///
    /// # Errors
    /// The driver's.
    pub fn keys(&self, text: &str) -> Result<()> {
        let keys = text.chars().flat_map(|key| {
            let press = |kind: &str| json!({"type": kind, "value": key.to_string()});
            [press("keyDown"), press("keyUp")]
        });
        let actions: Vec<Value> = keys.collect();
        let keyboard = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.call("/actions", &keyboard).map(drop)
    }

    /// Presses a key while another is held.
    ///
    /// # Errors
    /// The driver's.
    pub fn chord(&self, held: char, key: char) -> Result<()> {
        let press = |kind: &str, key: char| json!({"type": kind, "value": key.to_string()});
        let actions = json!([
            press("keyDown", held),
            press("keyDown", key),
            press("keyUp", key),
            press("keyUp", held)
        ]);
        let keyboard = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.call("/actions", &keyboard).map(drop)
    }

    /// Writes what is seen into a file.
    ///
    /// # Errors
    /// The driver's, or the file system's.
    pub fn picture(&self, path: &Path) -> Result<()> {
        let path_of = format!("/{}/screenshot", self.session);
        let picture = self.browser.call("GET", &path_of, None)?;
        let png = BASE64_STANDARD.decode(picture.as_str().context("no picture")?)?;
        Ok(fs::write(path, png)?)
    }

    /// What a page wanted and its policy did not let it have, or went wrong in its scripts.
    ///
    /// # Errors
    /// There is something.
    pub fn must_be_clean(&self) -> Result<()> {
        let refused = self.script("return window.refusedByPolicy")?;
        ensure!(refused == json!([]), "against the page's own policy: {refused}");
        let logged = self.call("/se/log", &json!({"type": "browser"}))?;
        let wrong = logged.as_array().into_iter().flatten().filter(|entry| {
            // A server that is away is told by the browser itself.
            entry["level"] == "SEVERE" && entry["source"] != "network"
        });
        let wrong: Vec<_> = wrong.map(|entry| entry["message"].to_string()).collect();
        ensure!(wrong.is_empty(), "{wrong:#?}");
        let elsewhere = "return performance.getEntriesByType('resource').map((e) => e.name).filter((name) => !name.startsWith(location.origin + '/') && !name.startsWith('ws'))";
        let elsewhere = self.script(elsewhere)?;
        ensure!(elsewhere == json!([]), "asked of others: {elsewhere}");
        Ok(())
    }

    /// Has axe look for what keeps people from using the page, in both colour schemes and widths; each is also kept as a picture
    /// `NAME-WIDTH-SCHEME.png` below this folder.
    ///
    /// # Errors
    /// It finds something.
    pub fn must_be_usable(&self, name: &str, pictures: &Path) -> Result<()> {
        let axe = fs::read_to_string(axe::script(&Cache::open()?)?)?;
        for (scheme, width) in ["light", "dark"].into_iter().flat_map(|s| WIDTHS.map(|w| (s, w))) {
            self.prefer(scheme)?;
            self.size(width)?;
            // Colours do not change at once.
            std::thread::sleep(std::time::Duration::from_millis(400));
            self.script("scrollTo(0, 0)")?;
            self.picture(&pictures.join(format!("{name}-{}-{scheme}.png", width.0)))?;
            let script = json!({"expression": format!("{axe}; axe.run().then((found) => JSON.stringify(found.violations.map((v) => [v.id, v.help, v.nodes.map((n) => n.html + ' ' + n.failureSummary)])))"), "awaitPromise": true});
            let said = self.devtools("Runtime.evaluate", &script)?;
            let found = said["result"]["value"].as_str();
            let found = found.with_context(|| format!("axe says nothing: {said}"))?;
            ensure!(found == "[]", "{name}, {scheme}, {}: {found}", width.0);
            let wide = self.script("return document.documentElement.scrollWidth - innerWidth")?;
            ensure!(
                wide.as_i64() <= Some(0),
                "{name} is {wide} wider than a {}",
                width.0
            );
        }
        self.size(WIDTHS[1])
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // The driver's end is the window's, too.
        let _ = self.browser.call("DELETE", &format!("/{}", self.session), None);
    }
}
