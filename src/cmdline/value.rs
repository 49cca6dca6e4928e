//! Values of command line options: words, numbers, sizes, switches and others.

use super::{Bootscrub, Console, Level, MAX_VCPUS, MemopMaxOrder, Threshold, Timestamps};

/// Returns the words of `line`. Blanks between double quotes do not separate words.
pub(super) fn words(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split(move |c: char| {
        if c == '"' {
            quoted = !quoted;
        }
        !quoted && (c.is_ascii_whitespace() || c == '\0')
    })
    .filter(|word| !word.is_empty())
}

/// Returns the beginnings of a value, longest first, each with its tail: up to a separator, then up to the end of the
/// first number with its unit.
pub(super) fn beginnings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let separators = text.rmatch_indices([',', ';', '/']).map(|(at, _)| at);
    separators
        .chain(end_of_number(text))
        .filter(|at| (1..text.len()).contains(at))
        .filter_map(|at| text.split_at_checked(at))
}

/// Returns the end of the first number in `text`, with its unit.
fn end_of_number(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let start = bytes.iter().position(u8::is_ascii_digit)?;
    let number = bytes.get(start..)?;
    let end = match number.strip_prefix(b"0x") {
        Some(digits) => 2 + digits.iter().position(|b| !b.is_ascii_hexdigit())?,
        None => number.iter().position(|b| !b.is_ascii_digit())?,
    };
    let has_unit = matches!(
        number.get(end).map(u8::to_ascii_lowercase),
        Some(b'b' | b'k' | b'm' | b'g' | b't')
    );
    Some(start + end + usize::from(has_unit))
}

/// Parses a decimal or, with `0x`, hexadecimal number.
pub(super) fn number(text: &str) -> Option<u32> {
    u32::try_from(long(text)?).ok()
}

/// Parses a size with the unit B, K, M, G or T, by default K. Returns bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        // In a hexadecimal number a final B is a digit, as in Xen.
        b'b' | b'B' if !text.starts_with("0x") => (text.get(..text.len() - 1)?, 0),
        b'k' | b'K' => (text.get(..text.len() - 1)?, 10),
        b'm' | b'M' => (text.get(..text.len() - 1)?, 20),
        b'g' | b'G' => (text.get(..text.len() - 1)?, 30),
        b't' | b'T' => (text.get(..text.len() - 1)?, 40),
        _ => (text, 10),
    };
    long(digits)?.checked_mul(1 << shift)
}

/// Parses a switch: no value, or one of Xen's words for on and off.
pub(super) fn boolean(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("" | "1" | "yes" | "on" | "true" | "enable") => Some(true),
        Some("0" | "no" | "off" | "false" | "disable") => Some(false),
        Some(_) => None,
    }
}

fn long(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

pub(super) fn vcpu_range(text: &str) -> Option<(u32, u32)> {
    let (low, high) = match text.split_once('-') {
        None => {
            let n = number(text)?;
            (n, n)
        }
        Some(("", high)) => (1, number(high)?),
        Some((low, "")) => (number(low)?, MAX_VCPUS),
        Some((low, high)) => (number(low)?, number(high)?),
    };
    (low > 0 && low <= high).then_some((low, high))
}

/// Returns the last console in the list that Krypton supports.
pub(super) fn console(text: &str) -> Option<Console> {
    let mut chosen = None;
    for part in text.split(',') {
        match part {
            "none" => chosen = Some(Console::None),
            "dtuart" => chosen = Some(Console::Dtuart),
            "com1" | "com2" | "vga" => chosen = chosen.or(Some(Console::Dtuart)),
            _ => return None,
        }
    }
    chosen
}

pub(super) fn timestamps(value: Option<&str>) -> Option<Timestamps> {
    match value {
        None | Some("date") => Some(Timestamps::Date),
        Some("datems") => Some(Timestamps::DateMs),
        Some("boot") => Some(Timestamps::Boot),
        Some("raw") => Some(Timestamps::Raw),
        Some("none") => Some(Timestamps::None),
        Some(other) => boolean(Some(other)).map(|on| match on {
            true => Timestamps::Date,
            false => Timestamps::None,
        }),
    }
}

fn level(text: &str) -> Option<Level> {
    Some(match text {
        "none" => Level::None,
        "error" => Level::Error,
        "warning" => Level::Warning,
        "info" => Level::Info,
        "debug" | "all" => Level::Debug,
        _ => return None,
    })
}

/// Parses `level` or `level/rate-limited level`.
pub(super) fn threshold(text: &str) -> Option<Threshold> {
    let (always, limited) = text.split_once('/').unwrap_or((text, text));
    let always = level(always)?;
    let limited = level(limited)?.max(always);
    Some(Threshold { always, limited })
}

/// Parses the time of scrubbing; the inner `None` is never.
pub(super) fn bootscrub(value: Option<&str>) -> Option<Option<Bootscrub>> {
    if value == Some("idle") {
        return Some(Some(Bootscrub::Idle));
    }
    boolean(value).map(|on| on.then_some(Bootscrub::Boot))
}

/// Parses `guest[,control[,hardware[,device]]]`; an empty place keeps its default.
pub(super) fn orders(text: &str, default: MemopMaxOrder) -> Option<MemopMaxOrder> {
    let mut orders = default;
    let mut parts = text.split(',');
    for slot in [
        &mut orders.guest,
        &mut orders.control,
        &mut orders.hardware,
        &mut orders.device,
    ] {
        match parts.next() {
            None | Some("") => {}
            Some(part) => {
                *slot = number(part)
                    .and_then(|n| u8::try_from(n).ok())
                    .filter(|n| *n <= 18)?;
            }
        }
    }
    parts.next().is_none().then_some(orders)
}

/// Xen's options that have no effect here: for x86, or tuning parameters that do not exist, or defaults that cannot be
/// changed. An entry that ends in `-` or `_` stands for all options with that prefix.
const WITHOUT_EFFECT: &[&str] = &[
    "acpi",
    "argo",
    "ats",
    "availmem",
    "badpage",
    "bootscrub",
    "bootscrub_chunk",
    "com1",
    "com2",
    "core_parking",
    "cpufreq",
    "cpuid",
    "cpuid_mask_",
    "crash-debug-",
    "crashinfo_maxaddr",
    "crashkernel",
    "credit2_",
    "dbgp",
    "debugtrace",
    "dit",
    "dma_bits",
    "dom0",
    "dom0-iommu",
    "extra_guest_irqs",
    "flask",
    "font",
    "gdb",
    "hardware_dom",
    "hest_disable",
    "iommu",
    "iommu_dev_iotlb_timeout",
    "low_crashinfo",
    "low_mem_virq_limit",
    "max_lpi_bits",
    "pci",
    "pci-passthrough",
    "pci-phantom",
    "rcu-idle-timer-period-ms",
    "reboot",
    "sched-gran",
    "sched_credit2_",
    "sched_credit_tslice_ms",
    "sched_smt_power_savings",
    "scrub-domheap",
    "serial_tx_buffer",
    "spec-ctrl",
    "tbuf_size",
    "tevt_mask",
    "tickle_one_idle_cpu",
    "timer_slop",
    "ucode",
    "vcpu_migration_delay",
    "vesa-ram",
    "vga",
    "watchdog",
    "watchdog_timeout",
    "xenheap_megabytes",
];

pub(super) fn is_without_effect(name: &str) -> bool {
    WITHOUT_EFFECT.iter().any(|known| {
        let family = known.ends_with(['-', '_']);
        name == *known || family && name.starts_with(known)
    })
}
