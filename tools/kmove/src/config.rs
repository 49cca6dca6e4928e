//! The configuration of a domain: what `xl list -l` tells of it, as a file that `xl create` reads.

use std::fmt::Write;

use crate::json::Json;

/// A configuration, and the settings that a file for `xl create` has no words for here.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Its text.
    pub text: String,
    /// Settings that are not in it.
    pub left_out: Vec<String>,
}

/// Settings of `b_info` and `c_info` that say nothing of their own, or that the stream has.
const IMPLIED: [&str; 16] = [
    "type",
    "domid",
    "run_hotplug_scripts",
    "avail_vcpus",
    "target_memkb",
    "video_memkb",
    "claim_mode",
    "type.pvh",
    "arch_x86",
    "ssidref",
    "ssid_label",
    "shadow_memkb",
    "max_grant_version",
    "device_model_version",
    "localtime",
    "disable_migrate",
];

/// The actions at the domain's ends.
const ENDS: [&str; 5] = [
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "on_watchdog",
    "on_soft_reset",
];

fn quoted(text: &str) -> String {
    // xl's files know no escape for quotes but the other kind of quotes.
    match text.contains('"') {
        true => format!("'{text}'"),
        false => format!("\"{text}\""),
    }
}

impl Config {
    /// Returns the configuration of the domain that `told`, the answer of `xl list -l NAME`, describes; `None` when that is no
    /// such answer.
    pub fn of(told: &str) -> Option<Self> {
        let told = Json::parse(told)?;
        let config = told.elements().first()?.get("config")?;
        let mut made = Self {
            text: String::new(),
            left_out: Vec::new(),
        };
        for (name, value) in config.get("c_info")?.members() {
            match name.as_str() {
                "name" | "uuid" => made.set(name, &quoted(value.text()?)),
                _ => made.leave_out(name, value),
            }
        }
        for (name, value) in config.get("b_info")?.members() {
            made.build(name, value)?;
        }
        for (name, value) in config.members() {
            match name.as_str() {
                "c_info" | "b_info" => {}
                "disks" => made.devices("disk", value, disk),
                "nics" => made.devices("vif", value, nic),
                end if ENDS.contains(&end) => {
                    made.set(end, &quoted(&value.text()?.replace('_', "-")));
                }
                _ => made.leave_out(name, value),
            }
        }
        Some(made)
    }

    fn set(&mut self, name: &str, value: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{name} = {value}");
    }

    fn leave_out(&mut self, name: &str, value: &Json) {
        if !value.is_nothing() && !IMPLIED.contains(&name) {
            self.left_out.push(name.to_owned());
        }
    }

    fn build(&mut self, name: &str, value: &Json) -> Option<()> {
        match name {
            "max_vcpus" => {
                self.set("vcpus", value.text()?);
                self.set("maxvcpus", value.text()?);
            }
            "max_memkb" => self.set("memory", &(value.number()?.div_ceil(1024)).to_string()),
            "kernel" | "ramdisk" => self.set(name, &quoted(value.text()?)),
            "cmdline" => self.set("extra", &quoted(value.text()?)),
            "event_channels" => self.set("max_event_channels", value.text()?),
            "max_grant_frames" | "max_maptrack_frames" => self.set(name, value.text()?),
            "sched_params" => {
                for (name, value) in value.members() {
                    match name.as_str() {
                        "weight" => self.set("cpu_weight", value.text()?),
                        "cap" => self.set("cap", value.text()?),
                        "sched" => {}
                        _ => self.leave_out(name, value),
                    }
                }
            }
            "arch_arm" => {
                for (name, value) in value.members() {
                    match name.as_str() {
                        "vpmu" => self.set("vpmu", "1"),
                        "gic_version" => {}
                        _ => self.leave_out(name, value),
                    }
                }
            }
            _ => self.leave_out(name, value),
        }
        Some(())
    }

    fn devices(
        &mut self,
        name: &str,
        devices: &Json,
        say: fn(&str, &Json, &mut Vec<String>) -> bool,
    ) {
        let mut all = Vec::new();
        for device in devices.elements() {
            let mut words = Vec::new();
            for (key, value) in device.members() {
                if !say(key, value, &mut words) {
                    self.leave_out(&format!("{name}: {key}"), value);
                }
            }
            // The target goes last: everything behind it belongs to it.
            words.sort_by_key(|word| word.starts_with("target="));
            all.push(quoted(&words.join(",")));
        }
        self.set(name, &format!("[{}]", all.join(", ")));
    }
}

/// Says a setting of a disk; whether it is known.
fn disk(key: &str, value: &Json, words: &mut Vec<String>) -> bool {
    let text = value.text().unwrap_or("");
    match key {
        "pdev_path" => words.push(format!("target={text}")),
        "vdev" => words.push(format!("vdev={text}")),
        "format" => words.push(format!("format={text}")),
        "readwrite" => {
            let access = if text == "0" { "ro" } else { "rw" };
            words.push(format!("access={access}"));
        }
        "script" => words.push(format!("script={text}")),
        "backend" => words.push(format!("backendtype={text}")),
        "backend_domid" | "colo_restore_enable" => {}
        _ => return false,
    }
    true
}

/// Says a setting of a network interface; whether it is known.
fn nic(key: &str, value: &Json, words: &mut Vec<String>) -> bool {
    let text = value.text().unwrap_or("");
    match key {
        "mac" | "bridge" | "script" | "ip" | "gatewaydev" => words.push(format!("{key}={text}")),
        "devid" | "nictype" | "mtu" | "backend_domid" => {}
        "ifname" => words.push(format!("vifname={text}")),
        _ => return false,
    }
    true
}

/// Returns the value of a setting of a configuration: of `name = "demo"` the word demo.
pub fn setting<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches(['"', '\'']))
    })
}

/// Returns the configuration with another name.
pub fn renamed(text: &str, name: &str) -> String {
    let is_name = |line: &str| {
        line.split_once('=')
            .is_some_and(|(key, _)| key.trim() == "name")
    };
    let mut all: Vec<String> = text
        .lines()
        .filter(|line| !is_name(line))
        .map(str::to_owned)
        .collect();
    all.insert(0, format!("name = {}", quoted(name)));
    all.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::{Config, renamed, setting};

    const TOLD: &str = r#"[ { "domid": 1, "config": {
        "c_info": { "type": "pvh", "name": "demo", "uuid": "9738007a-eb7d-4cbe-a26c-73080a6ec129" },
        "b_info": { "max_vcpus": 2, "avail_vcpus": [0, 1], "max_memkb": 131072, "target_memkb": 98304,
            "sched_params": { "sched": "credit2", "weight": 512, "cap": 50 }, "kernel": "/k", "cmdline": "a=\"b\"",
            "iomem": [ { "start": 1 } ], "arch_arm": { "vpmu": "True" } },
        "disks": [ { "pdev_path": "/dev/data", "vdev": "xvda", "format": "raw", "readwrite": 1 } ],
        "nics": [ { "devid": 0, "mac": "00:16:3e:00:00:01", "bridge": "xenbr0" } ],
        "on_soft_reset": "soft_reset", "on_reboot": "restart" } } ]"#;

    #[test]
    fn what_xl_tells_becomes_what_xl_reads() {
        let config = Config::of(TOLD).unwrap();
        let expected = [
            "name = \"demo\"",
            "uuid = \"9738007a-eb7d-4cbe-a26c-73080a6ec129\"",
            "vcpus = 2",
            "maxvcpus = 2",
            "memory = 128",
            "cpu_weight = 512",
            "cap = 50",
            "kernel = \"/k\"",
            "extra = 'a=\"b\"'",
            "vpmu = 1",
            "disk = [\"vdev=xvda,format=raw,access=rw,target=/dev/data\"]",
            "vif = [\"mac=00:16:3e:00:00:01,bridge=xenbr0\"]",
            "on_soft_reset = \"soft-reset\"",
            "on_reboot = \"restart\"",
        ];
        assert_eq!(config.text.lines().collect::<Vec<_>>(), expected);
        assert_eq!(config.left_out, ["iomem"]);
        assert_eq!(setting(&config.text, "name"), Some("demo"));
        assert_eq!(Config::of("[]"), None);
        let other = renamed(&config.text, "twin");
        assert_eq!(setting(&other, "name"), Some("twin"));
        assert_eq!(other.lines().count(), config.text.lines().count());
    }
}
