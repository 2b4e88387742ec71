//! A real browser over the DevTools protocol: <https://chromedevtools.github.io/devtools-protocol/>. Just as much of WebSocket (RFC 6455)
//! as it takes to speak to a process of our own.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Where Chromium may be.
const PLACES: [&str; 4] = [
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
    "/usr/bin/google-chrome-stable",
];

/// A browser with one page.
pub struct Browser {
    child: Child,
    _profile: TempDir,
    socket: BufReader<TcpStream>,
    next: u64,
    session: Option<String>,
    /// What the browser told without being asked, in order.
    pub events: Vec<Value>,
}

impl Browser {
    /// Starts one; `None`, with a line that says so, where there is none.
    pub fn start() -> Option<Self> {
        let Some(program) = PLACES.iter().map(PathBuf::from).find(|path| path.exists()) else {
            println!("skipped: there is no Chromium on this machine");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new(program)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-proxy-server",
            ])
            .args(["--remote-debugging-port=0", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(told.read_line(&mut line).unwrap() > 0, "Chromium ended before it listened");
            if let Some(address) = line.trim().strip_prefix("DevTools listening on ws://") {
                break address.to_string();
            }
        };
        std::thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
        let (host, path) = address.split_once('/').unwrap();
        let mut tcp = TcpStream::connect(host).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let ask = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        tcp.write_all(ask.as_bytes()).unwrap();
        let mut socket = BufReader::new(tcp);
        let mut line = String::new();
        socket.read_line(&mut line).unwrap();
        assert!(line.contains("101"), "{line}");
        while line.trim() != "" {
            line.clear();
            socket.read_line(&mut line).unwrap();
        }
        let mut browser =
            Self { child, _profile: profile, socket, next: 0, session: None, events: Vec::new() };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(String::from);
        for domain in ["Page", "Network", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Calls a method and returns its result.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        let message = self.ask(method, params);
        assert!(message["error"].is_null(), "{method}: {message}");
        message["result"].clone()
    }

    /// Calls a method and returns the reply, which may be an error.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.clone().into();
        }
        self.write(message.to_string().as_bytes());
        loop {
            let message = self.read();
            if message["id"] == id {
                return message;
            }
            self.events.push(message);
        }
    }

    /// Opens an address and waits until it is there.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        self.until(&format!(
            "document.readyState === 'complete' && location.href !== 'about:blank' && {}",
            true
        ));
    }

    /// The value of an expression; null if the page went to another address meanwhile.
    pub fn value(&mut self, expression: &str) -> Value {
        const NAVIGATED: i64 = -32000;
        let message =
            self.ask("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        let error = &message["error"];
        assert!(error.is_null() || error["code"] == NAVIGATED, "{expression}: {message}");
        message["result"]["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) {
        for _ in 0..400 {
            if self.value(expression) == true {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        let page = self.value("document.body && document.body.innerText");
        panic!("never true: {expression}; the page is {page}");
    }

    /// Presses and releases a key.
    pub fn press(&mut self, key: &str) {
        let text = if key.chars().count() == 1 { key } else { "" };
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyDown", "key": key, "text": text }));
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key }));
    }

    /// Pictures for people to look at, where `RLAIF_SCREENSHOTS` names a folder.
    pub fn shots(&mut self, page: &str) {
        let Some(folder) = std::env::var_os("RLAIF_SCREENSHOTS") else { return };
        let folder = std::path::PathBuf::from(folder);
        for (name, width, scheme) in [
            ("wide-light", 1280, "light"),
            ("wide-dark", 1280, "dark"),
            ("narrow-light", 390, "light"),
            ("narrow-dark", 390, "dark"),
        ] {
            let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            self.call("Emulation.setEmulatedMedia", media);
            let size =
                json!({ "width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500 });
            self.call("Emulation.setDeviceMetricsOverride", size);
            let shot = self
                .call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true }));
            std::fs::write(folder.join(format!("{page}-{name}.png.base64")), shot["data"].as_str().unwrap())
                .unwrap();
        }
        self.call("Emulation.clearDeviceMetricsOverride", json!({}));
        self.call("Emulation.setEmulatedMedia", json!({ "features": [] }));
    }

    fn write(&mut self, payload: &[u8]) {
        let mut frame = vec![0x81];
        match payload.len() {
            n @ 0..126 => frame.push(0x80 | n as u8),
            n @ 126..65536 => {
                frame.push(0x80 | 126);
                frame.extend((n as u16).to_be_bytes());
            }
            n => {
                frame.push(0x80 | 127);
                frame.extend((n as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]); // a mask of zeros leaves the payload as it is
        frame.extend(payload);
        self.socket.get_mut().write_all(&frame).unwrap();
    }

    fn read(&mut self) -> Value {
        let mut message = Vec::new();
        loop {
            let mut head = [0; 2];
            self.socket.read_exact(&mut head).unwrap();
            let length = match head[1] & 0x7f {
                126 => {
                    let mut bytes = [0; 2];
                    self.socket.read_exact(&mut bytes).unwrap();
                    u64::from(u16::from_be_bytes(bytes))
                }
                127 => {
                    let mut bytes = [0; 8];
                    self.socket.read_exact(&mut bytes).unwrap();
                    u64::from_be_bytes(bytes)
                }
                n => u64::from(n),
            };
            let start = message.len();
            message.resize(start + length as usize, 0);
            self.socket.read_exact(&mut message[start..]).unwrap();
            if head[0] & 0x80 != 0 {
                return serde_json::from_slice(&message).unwrap();
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
