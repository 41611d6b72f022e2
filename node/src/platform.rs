//! What the results of a program that is not portable may depend on.

use dockercomp_protocol::wire::work::{Platform, is_label};

/// The platform of this machine. The vendor of the CPU is known on Linux only.
pub(crate) fn platform() -> Platform {
    // Once, at the start, from a file in memory.
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Platform { os: std::env::consts::OS.to_owned(), cpu: vendor(&cpus).unwrap_or_default() }
}

/// The vendor in `/proc/cpuinfo`: `vendor_id` on x86, `CPU implementer` on Arm.
fn vendor(cpus: &str) -> Option<String> {
    let mut fields = cpus.lines().filter_map(|line| line.split_once(':'));
    let (_, vendor) =
        fields.find(|(key, _)| ["vendor_id", "CPU implementer"].contains(&key.trim()))?;
    let vendor = vendor.trim();
    is_label(vendor).then(|| vendor.to_owned())
}

#[cfg(test)]
mod tests {
    use super::vendor;

    #[test]
    fn the_vendor_is_read() {
        let x86 = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n";
        assert_eq!(vendor(x86).as_deref(), Some("GenuineIntel"));
        let arm = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n";
        assert_eq!(vendor(arm).as_deref(), Some("0x41"));
        assert_eq!(vendor(""), None);
    }
}
