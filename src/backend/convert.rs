//! How do steps whose pages may be any device's become steps of the one device that they are all of?

use super::{AttendStep, PageSource, PageTarget, PlacedPage};

/// Targets whose pages are all one device's.
pub(super) fn targets_of<'a, A, P>(
    targets: &'a mut [PageTarget<'_, A>],
    of: impl Fn(&'a mut A) -> &'a mut P,
) -> Vec<PageTarget<'a, P>> {
    let target = |target: &'a mut PageTarget<'_, A>| PageTarget {
        layout: target.layout,
        layer: target.layer,
        page: of(target.page),
        first_slot: target.first_slot,
        rows: target.rows.clone(),
        slot_angles: target.slot_angles,
    };
    targets.iter_mut().map(target).collect()
}

/// Has `attend` compute steps whose pages are all one device's.
pub(super) fn with_steps<'a, A, P: 'a>(
    steps: &mut [AttendStep<'a, A>],
    of: impl Fn(&'a A) -> &'a P + Copy,
    attend: impl FnOnce(&mut [AttendStep<'a, P>]),
) {
    let mut of_device: Vec<_> = steps.iter_mut().map(|step| step_of(step, of)).collect();
    attend(&mut of_device);
    for (step, computed) in steps.iter_mut().zip(of_device) {
        (step.page_masses, step.key_masses) = (computed.page_masses, computed.key_masses);
    }
}

/// A step whose pages are one device's; the masses go with it.
fn step_of<'a, A, P: 'a>(
    step: &mut AttendStep<'a, A>,
    of: impl Fn(&'a A) -> &'a P,
) -> AttendStep<'a, P> {
    AttendStep {
        layout: step.layout,
        layer: step.layer,
        pages: pages_of(&step.pages, of),
        n_sets: step.n_sets,
        n_tokens: step.n_tokens,
        first_row: step.first_row,
        first_index: step.first_index,
        near_angles: step.near_angles,
        far_angles: step.far_angles,
        offset_angles: step.offset_angles,
        scale: step.scale,
        page_masses: step.page_masses.take(),
        key_masses: step.key_masses.take(),
    }
}

/// Its pages as those of one device.
fn pages_of<'a, A, P>(
    pages: &[PlacedPage<'a, A>],
    of: impl Fn(&'a A) -> &'a P,
) -> Vec<PlacedPage<'a, P>> {
    let page = |page: &PlacedPage<'a, A>| PlacedPage {
        page: match page.page {
            PageSource::None => PageSource::None,
            PageSource::Fast(page) => PageSource::Fast(of(page)),
            PageSource::Unit(unit, bytes) => PageSource::Unit(unit, bytes),
        },
        kv_type: page.kv_type,
        n_keys: page.n_keys,
        first_index: page.first_index,
        placement: page.placement,
    };
    pages.iter().map(page).collect()
}
