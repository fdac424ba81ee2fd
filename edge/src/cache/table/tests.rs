use std::collections::{HashMap, HashSet};

use outport_core::oci::digest::Algorithm;
use proptest::prelude::*;

use super::pins::PINS_OF_IMAGES_MAX;
use super::*;

fn digest(number: u32) -> Digest {
    Algorithm::Sha256.digest(&number.to_be_bytes())
}

#[track_caller]
fn admit(table: &mut Table, number: u32, size: u64) -> Vec<Digest> {
    match table.admit(digest(number), size, Home::Here) {
        Admission::Admitted { evicted } => evicted,
        Admission::TooLarge => panic!("{number} was not admitted"),
    }
}

/// Uses a blob as a pull does: what is not there comes in. Returns whether it was there.
fn pull(table: &mut Table, number: u32, size: u64) -> bool {
    let hit = table.touch(&digest(number)).is_some();
    if !hit {
        admit(table, number, size);
    }
    hit
}

#[test]
fn with_nothing_learnt_the_least_recently_used_goes() {
    let mut table = Table::new(30);
    for number in 0..10 {
        assert_eq!(admit(&mut table, number, 3), []);
    }
    assert_eq!(table.touch(&digest(0)), Some((3, Trust::Verified)));
    assert_eq!(admit(&mut table, 99, 5), [digest(1), digest(2)]);
    assert_eq!((table.bytes(), table.len()), (29, 9));
}

#[test]
fn what_is_larger_than_the_cache_flushes_nothing() {
    let mut table = Table::new(10);
    admit(&mut table, 0, 10);
    assert_eq!(table.make_room(11), Admission::TooLarge);
    let refused = table.admit(digest(1), 11, Home::Here);
    assert_eq!(refused, Admission::TooLarge);
    assert_eq!(table.size(&digest(0)), Some(10));
}

#[test]
fn an_entry_is_counted_once() {
    let mut table = Table::new(10);
    admit(&mut table, 0, 4);
    admit(&mut table, 0, 4);
    assert_eq!((table.bytes(), table.len()), (4, 1));
    assert_eq!(table.remove(&digest(0)), Some(4));
    assert_eq!(table.remove(&digest(0)), None);
    assert_eq!((table.bytes(), table.len()), (0, 0));
}

#[test]
fn a_scan_does_not_flush_what_is_used() {
    let mut table = Table::new(1_000);
    let hot = 0..500;
    for _ in 0..10 {
        for number in hot.clone() {
            pull(&mut table, number, 1);
        }
    }
    // Ten times the capacity.
    for number in 1_000..11_000 {
        pull(&mut table, number, 1);
    }
    let left = hot.filter(|number| table.size(&digest(*number)).is_some());
    let left = left.count();
    assert!(left >= 450, "{left} of 500 left");
}

#[test]
fn what_left_is_remembered_and_what_is_too_many_is_not() {
    let mut table = Table::new(1);
    for number in 0..20_000 {
        admit(&mut table, number, 1);
    }
    assert_eq!(table.ghost_count(), GHOSTS.start);
    admit(&mut table, 19_990, 1);
    assert_eq!(table.entry(&digest(19_990)).unwrap().uses, 2);
    admit(&mut table, 1, 1);
    assert_eq!(table.entry(&digest(1)).unwrap().uses, 1);
}

#[test]
fn a_reader_in_parts_is_one_use() {
    let mut table = Table::new(10);
    admit(&mut table, 0, 1);
    admit(&mut table, 1, 1);
    for _ in 0..1_000 {
        table.touch(&digest(0));
        table.touch(&digest(1));
    }
    assert_eq!(table.entry(&digest(0)).unwrap().uses, 1);
}

#[test]
fn what_a_sibling_keeps_goes_first() {
    let mut table = Table::new(10);
    for number in 0..10 {
        let home = if number >= 5 {
            Home::Sibling
        } else {
            Home::Here
        };
        table.admit(digest(number), 1, home);
    }
    let evicted: HashSet<_> = (20..25)
        .flat_map(|number| admit(&mut table, number, 1))
        .collect();
    let of_siblings = (5..10).filter(|number| evicted.contains(&digest(*number)));
    assert!(of_siblings.count() >= 4, "{evicted:?}");
}

/// Pins a blob for an image of its own.
fn pin(table: &mut Table, number: u32) {
    pin_image(table, &number.to_string(), [number]).unwrap();
}

fn pin_image<const N: usize>(
    table: &mut Table,
    image: &str,
    numbers: [u32; N],
) -> Result<(), TooManyPins> {
    table.pin(image.to_owned(), numbers.map(digest).into())
}

fn unpin(table: &mut Table, number: u32) {
    table.unpin(&number.to_string()).unwrap();
}

#[test]
fn a_pin_holds_for_what_is_here_and_what_will_be() {
    let mut table = Table::new(10);
    admit(&mut table, 0, 4);
    pin(&mut table, 0);
    pin(&mut table, 1);
    admit(&mut table, 1, 4);
    for number in 2..100 {
        admit(&mut table, number, 2);
    }
    assert_eq!(table.size(&digest(0)), Some(4));
    assert_eq!(table.size(&digest(1)), Some(4));
    assert_eq!(table.make_room(3), Admission::TooLarge);
    unpin(&mut table, 0);
    admit(&mut table, 200, 6);
    assert_eq!(table.size(&digest(0)), None);
    assert_eq!(table.remove(&digest(1)), Some(4));
    assert_eq!(
        table.make_room(10),
        Admission::Admitted {
            evicted: vec![digest(200)]
        }
    );
}

#[test]
fn what_images_share_is_pinned_as_long_as_one_of_them_is() {
    let mut table = Table::new(10);
    pin_image(&mut table, "a", [0, 1]).unwrap();
    admit(&mut table, 0, 3);
    pin_image(&mut table, "b", [0, 2]).unwrap();
    assert_eq!(table.unpin("a"), Some([0, 1].map(digest).into()));
    assert_eq!(table.unpin("a"), None);
    assert_eq!(table.make_room(8), Admission::TooLarge);
    // What it was made of before is let go.
    pin_image(&mut table, "b", [2, 3]).unwrap();
    admit(&mut table, 1, 8);
    assert_eq!(table.size(&digest(0)), None);
    let pinned: HashSet<_> = table.pins().digests().copied().collect();
    assert_eq!(pinned, [2, 3].map(digest).into());
}

#[test]
fn the_number_of_pins_is_bounded() {
    let mut table = Table::new(10);
    for number in 0..u32::try_from(PINS_MAX).unwrap() {
        pin(&mut table, number);
    }
    let before = table.pins().images().clone();
    for image in ["7", "other"] {
        let refused = pin_image(&mut table, image, [6, u32::MAX, u32::MAX - 1]);
        assert_eq!(refused, Err(TooManyPins));
        assert_eq!(*table.pins().images(), before);
        assert!(!table.pins().contains(&digest(u32::MAX)));
    }
    // In the place of what it pinned, or with what is pinned.
    pin_image(&mut table, "7", [u32::MAX]).unwrap();
    pin_image(&mut table, "other", [1, 2, u32::MAX]).unwrap();
    assert_eq!(pin_image(&mut table, "8", [7, 8]), Err(TooManyPins));
    unpin(&mut table, 9);
    pin_image(&mut table, "8", [7, 8]).unwrap();
}

#[test]
fn the_number_of_pins_of_all_images_is_bounded() {
    let mut table = Table::new(10);
    let many: BTreeSet<_> = (0..u32::try_from(PINS_MAX).unwrap()).map(digest).collect();
    for image in 0..PINS_OF_IMAGES_MAX / PINS_MAX {
        table.pin(image.to_string(), many.clone()).unwrap();
    }
    table.pin("0".to_owned(), many).unwrap();
    assert_eq!(pin_image(&mut table, "other", [0]), Err(TooManyPins));
    unpin(&mut table, 3);
    pin_image(&mut table, "other", [0]).unwrap();
}

#[test]
fn one_that_is_not_pinned_is_found_among_very_many_that_are() {
    let mut table = Table::new(2_001);
    for number in 0..2_000 {
        pin(&mut table, number);
        admit(&mut table, number, 1);
    }
    admit(&mut table, 5_000, 1);
    assert_eq!(admit(&mut table, 5_001, 1), [digest(5_000)]);
}

proptest! {
    /// The table keeps its invariants beside a map that knows what should be there.
    #[test]
    fn keeps_its_invariants(steps in proptest::collection::vec((0..8_u8, 0..40_u32, 0..60_u64), 0..400)) {
        let mut table = Table::new(100);
        let mut here: HashMap<Digest, u64> = HashMap::new();
        let mut images: HashMap<String, BTreeSet<Digest>> = HashMap::new();
        for (step, number, size) in steps {
            let pinned: HashSet<Digest> = images.values().flatten().copied().collect();
            let image = (size / 2 % 4).to_string();
            let (digest, other) = (digest(number), digest(number + 1));
            match step {
                0..=3 => {
                    let home = if size % 2 == 0 { Home::Here } else { Home::Sibling };
                    // A blob has one size; one that is here with another one is replaced.
                    here.remove(&digest);
                    let admission = if step == 0 {
                        table.remove(&digest);
                        table.make_room(size)
                    } else {
                        table.admit(digest, size, home)
                    };
                    let Admission::Admitted { evicted } = admission else {
                        let held: u64 = here.iter().filter(|(digest, _)| pinned.contains(digest)).map(|(_, size)| size).sum();
                        prop_assert!(size > 100 - held.min(100), "refused without need");
                        continue;
                    };
                    for victim in evicted {
                        let sum: u64 = here.values().sum();
                        prop_assert!(sum + size > 100, "evicted without need");
                        prop_assert!(!pinned.contains(&victim), "evicted a pinned one");
                        prop_assert!(here.remove(&victim).is_some(), "evicted what is not here");
                    }
                    if step > 0 {
                        here.insert(digest, size);
                    }
                }
                4 | 5 => prop_assert_eq!(table.touch(&digest).map(|(size, _)| size), here.get(&digest).copied()),
                6 if size % 2 == 0 => {
                    table.pin(image.clone(), [digest, other].into()).unwrap();
                    images.insert(image, [digest, other].into());
                }
                6 => prop_assert_eq!(table.unpin(&image), images.remove(&image)),
                _ => prop_assert_eq!(table.remove(&digest), here.remove(&digest)),
            }
            let sum: u64 = here.values().sum();
            prop_assert!(sum <= 100);
            prop_assert_eq!((table.bytes(), table.len()), (sum, here.len()));
            for (digest, size) in &here {
                prop_assert_eq!(table.size(digest), Some(*size));
            }
        }
    }
}

#[test]
fn a_disk_that_is_smaller_than_the_capacity_is_relieved() {
    let mut table = Table::new(1000);
    for number in 0..5 {
        table.admit(digest(number), 10, Home::Here);
    }
    pin(&mut table, 0);
    assert_eq!(table.relieve(15).len(), 2);
    assert_eq!(table.bytes(), 30);
    assert_eq!(table.relieve(1000).len(), 2);
    assert_eq!(table.size(&digest(0)), Some(10));
    assert!(table.relieve(1).is_empty());
}
