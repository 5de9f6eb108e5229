//! Whatever the daemon says and however time passes: `World::suspect` and `suspect_all` hold at every step.

use proptest::prelude::*;

use super::world::World;
use super::*;

#[derive(Debug, Clone)]
enum Happening {
    Pass(u64),
    Facts {
        role: Role,
        newer: u64,
        lease_ms: u64,
        not_before_ms: u64,
        writable: bool,
        grace_ms: u64,
    },
    /// The daemon renews the lease for so long.
    Leased {
        role: Role,
        millis: u64,
    },
    Disconnected,
    Dies(usize),
    Sick(usize, bool),
    Stall(u64),
    UnitsTake(u64),
    Vanishes,
    /// Another machine has the address for so long.
    OtherHas(u64),
    Shutdown,
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![
        2 => Just(Role::Standby),
        4 => Just(Role::Promoting),
        4 => Just(Role::Active),
        2 => Just(Role::Suspended),
        1 => Just(Role::Lost),
        2 => Just(Role::Handover),
    ]
}

fn facts() -> impl Strategy<Value = Happening> {
    let times = (
        prop_oneof![Just(0), 1..2500u64],
        prop_oneof![2 => Just(0), 1 => 1..2000u64],
        prop_oneof![Just(0), 1..4000u64],
    );
    (
        role(),
        prop_oneof![3 => Just(0), 1 => 1..3u64],
        times,
        prop::bool::weighted(0.8),
    )
        .prop_map(
            |(role, newer, (lease_ms, not_before_ms, grace_ms), writable)| Happening::Facts {
                role,
                newer,
                lease_ms,
                not_before_ms,
                writable,
                grace_ms,
            },
        )
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (1..1500u64).prop_map(Happening::Pass),
        6 => facts(),
        6 => (prop_oneof![Just(Role::Promoting), Just(Role::Active), Just(Role::Handover)], 200..4000u64)
            .prop_map(|(role, millis)| Happening::Leased { role, millis }),
        1 => Just(Happening::Disconnected),
        1 => (0..3usize).prop_map(Happening::Dies),
        1 => (0..3usize, any::<bool>()).prop_map(|(unit, sick)| Happening::Sick(unit, sick)),
        1 => (1..3000u64).prop_map(Happening::Stall),
        1 => prop_oneof![1..100u64, 1..5000u64].prop_map(Happening::UnitsTake),
        1 => Just(Happening::Vanishes),
        1 => (1..5000u64).prop_map(Happening::OtherHas),
        1 => Just(Happening::Shutdown),
    ]
}

fn happens(world: &mut World, term: &mut u64, happening: &Happening) {
    match *happening {
        Happening::Pass(millis) => world.pass(millis),
        Happening::Leased { role, millis } => world.pass_leased(role, *term, millis),
        Happening::Facts {
            role,
            newer,
            lease_ms,
            not_before_ms,
            writable,
            grace_ms,
        } => {
            *term += newer;
            let instant = |ms: u64| (ms > 0).then(|| BootMs(world.now + ms));
            let facts = Facts {
                vip_not_before: instant(not_before_ms).unwrap_or_default(),
                grace_until: instant(grace_ms),
                writable,
                ..world.facts(role, *term, lease_ms)
            };
            world.step(Event::Facts(facts));
        }
        Happening::Disconnected => world.step(Event::Disconnected),
        Happening::Dies(unit) => world.running[unit] = false,
        Happening::Sick(unit, sick) => world.sick[unit] = sick,
        Happening::Stall(millis) => world.stall = millis,
        Happening::UnitsTake(millis) => world.unit_takes = millis,
        Happening::Vanishes => world.address_until = None,
        Happening::OtherHas(millis) => {
            // A pause too short for two questions is none.
            let goes_on = world.now < world.other.1 + 200;
            let since = if goes_on { world.other.0 } else { world.now };
            world.other = (since, world.now + millis);
        }
        Happening::Shutdown => world.step(Event::Shutdown),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_whatever_happens(happenings in prop::collection::vec(happening(), 1..60)) {
        let (mut world, mut term) = (World::new(3), 5);
        for happening in happenings {
            happens(&mut world, &mut term, &happening);
        }
    }

    /// However it got there, a node that stays without a role ends with nothing, and says so.
    #[test]
    fn without_a_role_nothing_is_left(happenings in prop::collection::vec(happening(), 1..30)) {
        let (mut world, mut term) = (World::new(3), 5);
        for happening in happenings {
            happens(&mut world, &mut term, &happening);
        }
        world.unit_takes = 30;
        world.hear(Role::Standby, term + 1, 0);
        world.pass(20_000);
        prop_assert_eq!(world.address_until, None);
        prop_assert_eq!(&world.running, &[false; 3]);
        prop_assert!(world.core.released_term() >= world.core.role_term);
    }

    /// However it got there, an active node whose PBX is well ends up with all of it.
    #[test]
    fn a_lasting_role_ends_with_everything_held(happenings in prop::collection::vec(happening(), 1..30)) {
        let (mut world, mut term) = (World::new(3), 5);
        for happening in happenings.into_iter().filter(|happening| !matches!(happening, Happening::Shutdown)) {
            happens(&mut world, &mut term, &happening);
        }
        (world.unit_takes, world.stall, world.sick) = (30, 0, vec![false; 3]);
        world.other = (0, 0);
        world.hear(Role::Standby, term, 0);
        world.pass(20_000);
        world.pass_leased(Role::Promoting, term + 1, 3000);
        world.pass_leased(Role::Active, term + 1, 7000);
        prop_assert!(world.core.vip_held());
        prop_assert_eq!(&world.running, &[true; 3]);
        prop_assert!(world.core.units_healthy_since().is_some());
        prop_assert!(world.core.released_term() < world.core.role_term);
    }
}
