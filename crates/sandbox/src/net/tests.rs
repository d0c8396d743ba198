//! Pure parts; the kernel's side is in `tests/hostkit_net.rs`.

use super::*;

#[test]
fn a_subnet_is_divided_among_bridges_of_at_most_1021_instances() {
    let subnet: Subnet = "10.213.0.0/16".parse().unwrap();
    let (first, second) = (
        Bridge::new("lauf", 0, subnet),
        Bridge::new("lauf", 1, subnet),
    );
    assert_eq!(first.network.to_string(), "10.213.0.0/22");
    assert_eq!(second.network.to_string(), "10.213.4.0/22");
    assert_eq!(second.gateway(), Ipv4Addr::new(10, 213, 4, 1));
    assert_eq!(first.hosts().len(), 1021);
    assert_eq!(first.free.len(), 1021);
    let small = Bridge::new("lauf", 0, "192.168.7.0/29".parse().unwrap());
    assert_eq!(small.hosts().len(), 5, "six addresses less the gateway");
    let last = Bridge::new("lauflauf", 63, subnet);
    assert!(last.port(1022).len() <= 15, "IFNAMSIZ");
}

#[test]
fn bad_configurations_name_the_field() {
    let with = |name: &str, subnet: Option<&str>| NetworkConfig {
        name: name.to_owned(),
        subnet: subnet.map(|s| s.parse().unwrap()),
        ..NetworkConfig::default()
    };
    for name in [
        "",
        "9",
        "lauf0",
        "toolonganame",
        "la-uf",
        "fwd",
        "x; flush ruleset",
    ] {
        let error = check(&with(name, None)).unwrap_err();
        assert!(
            matches!(error, NetError::Config { field: "name", .. }),
            "{name}: {error}"
        );
    }
    for subnet in ["10.0.0.0/8", "10.0.0.0/30"] {
        let error = check(&with("lauf", Some(subnet))).unwrap_err();
        assert!(
            matches!(
                error,
                NetError::Config {
                    field: "subnet",
                    ..
                }
            ),
            "{subnet}: {error}"
        );
    }
    assert!(check(&with("lauf", Some("10.0.0.0/16"))).is_ok());
}

#[test]
fn hardware_addresses_are_local_unicast_and_distinct() {
    let a = hardware(Ipv4Addr::new(10, 213, 0, 2));
    assert_eq!(a[0] & 3, 2);
    assert_ne!(a, hardware(Ipv4Addr::new(10, 213, 4, 2)));
    assert_ne!(group("lauf"), group("laug"));
}
