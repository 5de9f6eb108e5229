//! The rules one by one, each in the simplest story that shows it.

use super::world::{World, at};
use super::*;

fn active(units: usize) -> World {
    let mut world = World::new(units);
    world.pass(100);
    world.hear(Role::Standby, 6, 0);
    world.pass(100);
    world.pass_leased(Role::Promoting, 7, 1000);
    world.pass_leased(Role::Active, 7, 2000);
    world
}

fn position(duties: &[Duty], wanted: impl Fn(&Duty) -> bool) -> usize {
    duties.iter().position(wanted).expect("the duty is there")
}

fn is_start(of: usize) -> impl Fn(&Duty) -> bool {
    move |duty| matches!(duty, Duty::Unit { unit, verb: Verb::Start, .. } if *unit == of)
}

#[test]
fn a_promotion_goes_address_announcement_source_units_in_order() {
    let mut world = active(2);
    let duties = world.take();
    let add = position(&duties, |duty| *duty == Duty::AddVip);
    let announce = position(&duties, |duty| *duty == Duty::Announce);
    let source = position(&duties, |duty| *duty == Duty::SetSource);
    let (first, second) = (position(&duties, is_start(0)), position(&duties, is_start(1)));
    assert!(add < announce && announce < source && source < first && first < second);
    assert_eq!(duties.iter().filter(|duty| **duty == Duty::Announce).count(), 5);
    assert_eq!((world.state(0), world.state(1)), ("healthy", "healthy"));
    assert!(world.core.units_healthy_since().is_some() && world.core.vip_held());
    assert_eq!(world.core.not_eligible_because(at(world.now)), [""; 0]);
}

/// Whoever was out of reach then hears of it later.
#[test]
fn the_address_is_announced_now_and_then() {
    let mut world = active(0);
    world.take();
    world.pass_leased(Role::Active, 7, 25_000);
    let again = world.take().iter().filter(|duty| **duty == Duty::Announce).count();
    assert!((2..=3).contains(&again), "{again}");
}

/// The thread stood still, or the kernel held it up: meanwhile the daemon has gone on, and says so in a moment.
#[test]
fn a_pause_of_the_agent_alone_kills_no_pbx() {
    let mut world = active(1);
    world.take();
    world.now += 8000;
    world.step(Event::Tick);
    world.now += 20;
    world.hear(Role::Active, 7, 900);
    world.pass_leased(Role::Active, 7, 1000);
    assert_eq!(world.verbs(), []);
    assert!(world.core.vip_held());
    // Nothing waits to be read: the role is over.
    world.now += 8000;
    world.step(Event::Tick);
    world.pass(400);
    assert_eq!(world.verbs(), [(0, Verb::Kill)]);
}

#[test]
fn the_second_unit_waits_until_the_first_is_healthy() {
    let mut world = World::new(2);
    world.sick[0] = true;
    world.pass_leased(Role::Promoting, 7, 1500);
    assert_eq!(world.verbs(), [(0, Verb::Start)]);
    world.sick[0] = false;
    world.pass_leased(Role::Active, 7, 1000);
    assert_eq!(world.verbs(), [(1, Verb::Start)]);
}

#[test]
fn the_address_is_not_added_before_the_former_owners_is_gone() {
    let mut world = World::new(0);
    let not_before = BootMs(world.now + 900);
    for _ in 0..40 {
        let facts = Facts {
            vip_not_before: not_before,
            ..world.facts(Role::Promoting, 7, 1500)
        };
        world.step(Event::Facts(facts));
        world.pass(50);
        assert_eq!(
            world.address_until.is_some(),
            world.now >= not_before.0,
            "at {}",
            world.now
        );
    }
}

#[test]
fn a_file_system_that_is_not_writable_keeps_the_address_away() {
    let mut world = World::new(1);
    for _ in 0..10 {
        let facts = Facts {
            writable: false,
            ..world.facts(Role::Promoting, 7, 1500)
        };
        world.step(Event::Facts(facts));
        world.pass(100);
    }
    assert!(!world.core.vip_held());
    assert_eq!(world.verbs(), []);
}

#[test]
fn an_expired_lease_drops_the_address_and_leaves_the_pbx_for_the_grace() {
    let mut world = active(2);
    world.hear(Role::Active, 7, 500);
    world.take();
    world.pass(500);
    assert_eq!(world.take().iter().filter(|duty| **duty == Duty::DropVip).count(), 1);
    assert!(!world.core.vip_held());
    world.pass(2980);
    assert_eq!(world.verbs(), []);
    world.pass(20);
    assert_eq!(world.verbs(), [(1, Verb::Kill), (0, Verb::Kill)]);
    world.pass(300);
    assert_eq!(world.core.released_term(), 7);
}

#[test]
fn the_same_node_winning_again_in_the_grace_finds_its_calls_alive() {
    let mut world = active(2);
    world.hear(Role::Suspended, 7, 0);
    world.pass(1000);
    world.take();
    world.pass_leased(Role::Promoting, 8, 500);
    world.pass_leased(Role::Active, 8, 1000);
    assert_eq!(world.verbs(), []);
    assert!(world.core.vip_held());
    assert_eq!(world.state(0), "healthy");
}

#[test]
fn probes_that_fail_during_the_grace_count_for_nothing() {
    let mut world = active(1);
    world.sick[0] = true;
    world.hear(Role::Suspended, 7, 0);
    world.take();
    world.pass(2500);
    world.sick[0] = false;
    world.pass_leased(Role::Active, 7, 1000);
    assert_eq!(world.verbs(), []);
}

#[test]
fn a_loss_kills_everything_at_once() {
    let mut world = active(3);
    world.take();
    world.hear(Role::Lost, 7, 0);
    let duties = world.take();
    assert_eq!(duties[0], Duty::DropVip);
    let kills = duties
        .iter()
        .filter(|duty| matches!(duty, Duty::Unit { verb: Verb::Kill, .. }))
        .count();
    assert_eq!(kills, 3);
    assert_eq!(world.core.released_term(), 0);
    world.pass(300);
    assert_eq!(world.core.released_term(), 7);
}

#[test]
fn a_handover_stops_in_reverse_order_then_drops_then_confirms() {
    let mut world = active(2);
    world.take();
    world.unit_takes = 300;
    world.hear(Role::Handover, 7, 10_000);
    world.pass(500);
    assert!(world.core.vip_held(), "kept while the PBX says good-bye");
    assert_eq!(world.core.released_term(), 0);
    world.pass(2000);
    let duties = world.take();
    let stop = |of| {
        position(
            &duties,
            move |duty| matches!(duty, Duty::Unit { unit, verb: Verb::Stop, .. } if *unit == of),
        )
    };
    assert!(stop(1) < stop(0) && stop(0) < position(&duties, |duty| *duty == Duty::DropVip));
    assert_eq!(world.core.released_term(), 7);
    assert_eq!(world.address_until, None);
}

#[test]
fn a_role_taken_up_again_in_its_term_takes_the_confirmation_back() {
    let mut world = active(1);
    world.hear(Role::Handover, 7, 10_000);
    world.pass(1500);
    assert_eq!(world.core.released_term(), 7);
    world.pass_leased(Role::Active, 7, 1000);
    assert_eq!(world.core.released_term(), 6);
    assert_eq!(world.state(0), "healthy");
}

#[test]
fn a_unit_that_does_not_stop_in_time_is_killed() {
    let mut world = active(1);
    world.take();
    world.hear(Role::Handover, 7, 10_000);
    world.unit_takes = 5000;
    world.pass(1);
    world.unit_takes = 30;
    world.pass(2500);
    // Its stop was begun with 30 ms and done; a stop that hangs is another story:
    assert_eq!(world.core.released_term(), 7);
    let mut world = active(1);
    world.unit_takes = 60_000;
    world.take();
    world.hear(Role::Handover, 7, 10_000);
    world.pass(1900);
    assert_eq!(world.verbs(), [(0, Verb::Stop)]);
    world.unit_takes = 30;
    world.pass(500);
    assert_eq!(world.verbs(), [(0, Verb::Kill)]);
    assert_eq!(world.core.released_term(), 7);
}

#[test]
fn a_new_role_after_a_loss_that_was_not_heard_of_kills_units_with_dead_files() {
    let mut world = active(1);
    world.step(Event::Disconnected);
    world.take();
    world.pass_leased(Role::Promoting, 9, 1500);
    assert_eq!(world.verbs(), [(0, Verb::Kill), (0, Verb::Start)]);
    assert_eq!(world.state(0), "healthy");
}

#[test]
fn an_agent_that_starts_on_the_active_node_adopts_what_runs() {
    let mut world = World::new(2);
    world.running = vec![true, true];
    world.address_until = Some(world.now + 800);
    world.pass(200);
    assert!(
        world.address_until.is_some(),
        "left to its lifetime until the daemon has spoken"
    );
    world.pass_leased(Role::Active, 7, 1000);
    assert_eq!(world.verbs(), []);
    assert_eq!((world.state(0), world.state(1)), ("healthy", "healthy"));
    assert!(world.core.vip_held());
}

#[test]
fn a_unit_that_is_still_coming_up_when_an_agent_starts_gets_the_time_of_a_start() {
    let mut world = World::new(1);
    (world.running, world.sick) = (vec![true], vec![true]);
    world.pass_leased(Role::Active, 7, 1800);
    assert_eq!((world.verbs(), world.state(0)), (vec![], "starting"));
    world.sick[0] = false;
    world.pass_leased(Role::Active, 7, 500);
    assert_eq!((world.verbs(), world.state(0)), (vec![], "healthy"));
}

#[test]
fn an_agent_that_starts_on_a_standby_clears_away_what_it_finds() {
    let mut world = World::new(1);
    world.running = vec![true];
    world.address_until = Some(u64::MAX);
    world.hear(Role::Standby, 7, 0);
    world.pass(300);
    assert_eq!(world.address_until, None);
    assert_eq!(world.running, [false]);
    assert!(
        world
            .core
            .notices()
            .iter()
            .any(|notice| notice.what.contains("found running"))
    );
}

#[test]
fn an_agent_without_a_daemon_ends_up_with_nothing() {
    let mut world = World::new(1);
    world.running = vec![true];
    world.address_until = Some(u64::MAX);
    world.pass(1100);
    assert_eq!(world.address_until, None);
    assert_eq!(world.running, [true]);
    world.pass(2200);
    assert_eq!(world.running, [false]);
}

#[test]
fn a_unit_started_by_somebody_on_a_standby_is_killed_and_reported() {
    let mut world = World::new(1);
    world.hear(Role::Standby, 7, 0);
    world.pass(1000);
    world.take();
    world.running = vec![true];
    world.address_until = Some(u64::MAX);
    world.step(Event::Address(AddressEvent::Read {
        present: true,
        interface: Ok("eth0".to_owned()),
        has_link: true,
    }));
    world.pass(6000);
    assert_eq!(world.running, [false]);
    assert_eq!(world.core.notices().iter().filter(|notice| notice.serious).count(), 2);
}

#[test]
fn an_unwell_unit_is_restarted_once_and_then_makes_the_node_ineligible() {
    let mut world = active(1);
    world.take();
    world.sick[0] = true;
    world.pass_leased(Role::Active, 7, 1400);
    assert_eq!(world.verbs(), [(0, Verb::Stop), (0, Verb::Start)]);
    world.pass_leased(Role::Active, 7, 30_000);
    assert_eq!(world.verbs(), []);
    assert_eq!(world.state(0), "failed");
    let reasons = world.core.not_eligible_because(at(world.now));
    assert!(reasons[0].contains("u0 has failed"), "{reasons:?}");
    world.sick[0] = false;
    world.pass_leased(Role::Active, 7, 1000);
    assert_eq!(world.state(0), "healthy");
    assert!(world.core.not_eligible_because(at(world.now)).is_empty());
}

/// The cable of the network that the PBX serves, where the nodes speak to each other over another one.
#[test]
fn an_interface_without_link_is_said_and_ends_no_role() {
    let mut world = active(1);
    let said = |world: &World| {
        let notices = world.core.notices();
        notices
            .iter()
            .any(|notice| notice.what.contains("eth0") && notice.what.contains("has no link"))
    };
    assert!(!said(&world));
    world.has_link = false;
    world.pass_leased(Role::Active, 7, 1000);
    assert!(said(&world));
    assert!(!world.core.gives_up() && world.core.vip_held());
    assert_eq!(world.core.not_eligible_because(at(world.now)), [""; 0]);
    world.has_link = true;
    world.pass_leased(Role::Active, 7, 1000);
    assert!(!said(&world));
}

/// Nobody could take the role, and an operator has mended what was in the way.
#[test]
fn a_unit_that_failed_and_does_not_run_is_given_up_and_tried_again_after_ten_minutes() {
    let mut world = active(1);
    world.sick[0] = true;
    world.pass_leased(Role::Active, 7, 10_000);
    assert_eq!(world.state(0), "failed");
    assert!(!world.core.gives_up(), "it runs, and calls may go through it");
    world.running[0] = false;
    world.pass_leased(Role::Active, 7, 1000);
    assert!(world.core.gives_up());
    world.take();
    world.pass_leased(Role::Active, 7, 580_000);
    assert_eq!(world.verbs(), []);
    world.pass_leased(Role::Active, 7, 30_000);
    assert_eq!(world.verbs(), [(0, Verb::Stop), (0, Verb::Start)]);
    assert_eq!(world.state(0), "failed", "once, and then not for as long");
    world.take();
    world.pass_leased(Role::Active, 7, 620_000);
    assert_eq!(world.verbs(), [], "what runs is left alone");
    world.running[0] = false;
    world.sick[0] = false;
    world.pass_leased(Role::Active, 7, 3000);
    assert_eq!(world.state(0), "healthy");
    assert!(!world.core.gives_up());
}

/// Calls go through what is well: an operator decides.
#[test]
fn a_unit_that_dies_beside_others_that_serve_is_no_reason_to_give_the_role_away() {
    let mut world = active(2);
    let kill = |world: &mut World, unit: usize| {
        world.refuses[unit] = true;
        world.running[unit] = false;
        world.pass_leased(Role::Active, 7, 10_000);
        assert_eq!(world.state(unit), "failed");
    };
    kill(&mut world, 1);
    assert!(!world.core.gives_up());
    kill(&mut world, 0);
    assert!(world.core.gives_up());
}

#[test]
fn a_node_whose_unit_failed_stays_ineligible_for_a_while_as_a_standby() {
    let mut world = active(1);
    world.sick[0] = true;
    world.pass_leased(Role::Active, 7, 10_000);
    world.hear(Role::Handover, 7, 10_000);
    world.pass(3000);
    world.hear(Role::Standby, 8, 0);
    world.pass(1000);
    let reasons = world.core.not_eligible_because(at(world.now));
    assert!(
        reasons[0].contains("failed here when this node was active"),
        "{reasons:?}"
    );
    assert!(world.core.is_last_resort(at(world.now)));
    world.step(Event::Shutdown);
    assert!(!world.core.is_last_resort(at(world.now)));
}

/// The daemon was killed: the mount died first, the units with it, and the restarts failed before the agent heard why.
#[test]
fn what_failed_because_the_daemon_died_is_not_held_against_the_node() {
    for disconnected in [true, false] {
        let mut world = active(1);
        world.sick[0] = true;
        while world.state(0) != "failed" {
            world.pass_leased(Role::Active, 7, 100);
        }
        if disconnected {
            world.step(Event::Disconnected);
        } else {
            world.hear(Role::Lost, 7, 0);
        }
        world.hear(Role::Standby, 8, 0);
        world.pass(500);
        assert_eq!(world.core.not_eligible_because(at(world.now)), [""; 0]);
    }
}

#[test]
fn a_unit_that_ends_by_itself_is_started_again() {
    let mut world = active(1);
    world.take();
    world.running[0] = false;
    world.pass_leased(Role::Active, 7, 2000);
    assert_eq!(world.verbs(), [(0, Verb::Stop), (0, Verb::Start)]);
    assert_eq!(world.state(0), "healthy");
}

#[test]
fn a_renewal_that_reached_the_kernel_too_late_is_taken_back() {
    let mut world = active(0);
    world.hear(Role::Active, 7, 1500);
    world.take();
    world.stall = 1200;
    world.pass(400);
    let duties = world.take();
    let renewed = position(&duties, |duty| *duty == Duty::RenewVip);
    assert_eq!(duties[renewed + 1], Duty::DropVip);
    assert_eq!(world.address_until, None);
}

#[test]
fn a_shutdown_on_the_active_node_stops_in_order_then_drops() {
    let mut world = active(2);
    world.take();
    world.step(Event::Shutdown);
    world.pass_leased(Role::Active, 7, 1000);
    assert_eq!(world.verbs(), [(1, Verb::Stop), (0, Verb::Stop)]);
    assert!(world.core.finished());
    assert_eq!(world.address_until, None);
}

#[test]
fn a_shutdown_without_a_file_system_kills() {
    let mut world = active(1);
    world.hear(Role::Suspended, 7, 0);
    world.take();
    world.step(Event::Shutdown);
    world.pass(500);
    assert_eq!(world.verbs(), [(0, Verb::Kill)]);
    assert!(world.core.finished());
}
