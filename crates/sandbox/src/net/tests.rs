//! Pure parts; the kernel's side is in `tests/hostkit_net.rs`.

use super::*;

#[test]
fn addresses_are_given_out_in_turn_and_the_longest_out_of_use_comes_back_first() {
    let mut free = Free::of("192.168.7.0/29".parse().unwrap());
    assert_eq!(free.len(), 5, "eight less network, gateway and broadcast");
    let all: Vec<_> = std::iter::from_fn(|| free.take()).collect();
    assert_eq!(all, [2, 3, 4, 5, 6]);
    free.used.extend([4, 2]);
    assert_eq!(free.take(), Some(4));
    assert_eq!(Free::of("10.213.0.0/16".parse().unwrap()).len(), 65_533);
}

#[test]
fn links_have_names_and_numbers_the_kernel_takes() {
    let gateway = Ipv4Addr::new(10, 213, 0, 1);
    let lease = |name: &str, number| Lease::new(name, group(name), gateway, gateway, number);
    let last = lease("lauflauf", 65_534);
    assert!(last.port().len() <= 15, "IFNAMSIZ");
    assert!(i32::try_from(last.index()).is_ok());
    assert_ne!(last.index(), lease("lauflauf", 65_533).index());
    assert_ne!(last.index(), lease("laufmauf", 65_534).index());
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
