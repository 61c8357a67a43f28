//! What does the store find when it is opened, whatever happened to it before? It compares the
//! files with the catalogue and keeps, of every context, the newest row whose segments are all
//! there. Then it removes what nothing refers to; nothing else is ever changed, so a crash in the
//! middle of it leaves the same to be found again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::StoreError;
use crate::catalogue::{Catalogue, Contents, Found, Update};
use crate::codec::checksum;
use crate::disk::Disk;
use crate::ledger::Ledger;
use crate::publish::{gone_file, row_file};
use crate::row::{self, Key, Row, RowFault};
use crate::segment::{FOLDER, SegmentCell, file_name};

/// The file that says which format the store has.
const FORMAT_FILE: &str = "FORMAT";

/// The newest format known here.
const FORMAT: u32 = 1;

/// What was found when the store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Files that an interrupted process left behind, removed now.
    pub leftovers: Vec<String>,
    /// Damaged files, and where they are kept for a person to look at.
    pub set_aside: Vec<String>,
    /// Whether the catalogue was damaged and made anew from the rows' files.
    pub catalogue_rebuilt: bool,
    /// Contexts whose newest row was found in its file only.
    pub adopted: u64,
    /// Contexts whose row's file was lost, written anew from the catalogue.
    pub restored: u64,
    /// Contexts (tenant, name) that refer to segments which are missing.
    pub incomplete: Vec<(String, String)>,
}

/// A store as it was found.
pub(crate) struct Recovered {
    pub(crate) ledger: Ledger,
    pub(crate) catalogue: Catalogue,
    pub(crate) next_id: u64,
    pub(crate) report: OpenReport,
}

/// Looks through everything and makes it consistent.
pub(crate) fn recover(disk: &Arc<Disk>) -> Result<Recovered, StoreError> {
    let mut report = OpenReport::default();
    check_format(disk, &mut report)?;
    disk.check("make", FOLDER, disk.storage.create_dir(FOLDER))?;
    let files = Files::list(disk)?;
    let (mut catalogue, found) = Catalogue::open(disk)?;
    let (contents, is_sound) = match found {
        Found::Sound(contents) => (contents, true),
        Found::Nothing => (Contents::default(), true),
        Found::SetAside(place) => {
            report.set_aside.push(place);
            report.catalogue_rebuilt = true;
            (Contents::default(), false)
        }
    };
    let mut candidates =
        Candidates { rows: BTreeMap::new(), is_sound, in_catalogue: BTreeSet::new() };
    candidates.take_from_catalogue(&contents, &files)?;
    candidates.take_from_files(disk, &files, &mut report)?;
    let is_sound = candidates.is_sound && report.set_aside.is_empty();
    let chosen = candidates.choose(&files, is_sound, &mut report);
    update_catalogue(&mut catalogue, &contents, &chosen)?;
    let next_id = next_id(&files, &chosen);
    let mut ledger = clean(disk, &files, (chosen, is_sound), &mut report)?;
    ledger.take_in_uses(&contents.used);
    Ok(Recovered { ledger, catalogue, next_id, report })
}

/// The line of the format file.
fn format_line(version: u32) -> String {
    let words = format!("mneme-store {version}");
    format!("{words} {:016x}\n", checksum(words.as_bytes()))
}

fn check_format(disk: &Disk, report: &mut OpenReport) -> Result<(), StoreError> {
    let bytes = disk.read(FORMAT_FILE)?;
    let text = bytes.as_deref().map(String::from_utf8_lossy);
    let version = text.as_ref().and_then(|text| text.split(' ').nth(1)?.parse().ok());
    let is_right = |version: &u32| text.as_deref() == Some(&*format_line(*version));
    match version.filter(is_right) {
        Some(FORMAT) => return Ok(()),
        Some(found) if found > FORMAT => {
            let (file, supported) = (FORMAT_FILE.to_owned(), FORMAT);
            return Err(StoreError::NewerFormat { file, found, supported });
        }
        _ => {}
    }
    if bytes.is_some() {
        // A line that cannot be read says nothing: the files themselves tell their versions.
        disk.counters.count_mismatch();
        report.set_aside.push(disk.set_aside(FORMAT_FILE)?);
    }
    let line = format_line(FORMAT);
    disk.write_whole("FORMAT.tmp", FORMAT_FILE, &|to| to.write_at(0, line.as_bytes()))
}

/// The files of the folder.
#[derive(Default)]
struct Files {
    /// Segments and their bytes.
    segments: BTreeMap<u64, u64>,
    rows: BTreeMap<u64, u64>,
    /// Rows of contexts that were deleted.
    gone: BTreeSet<u64>,
    /// Files under a temporary name.
    temporary: Vec<String>,
}

impl Files {
    fn list(disk: &Disk) -> Result<Self, StoreError> {
        let mut files = Self::default();
        for entry in disk.list(FOLDER)? {
            let (stem, ending) = entry.name.split_once('.').unwrap_or((&entry.name, ""));
            let id = u64::from_str_radix(stem, 16).ok().filter(|_| stem.len() == 16);
            match (id, ending) {
                (Some(id), "seg") => drop(files.segments.insert(id, entry.bytes)),
                (Some(id), "row") => drop(files.rows.insert(id, entry.bytes)),
                (Some(id), "gone") => drop(files.gone.insert(id)),
                (Some(_), "tmp" | "rtmp") => {
                    files.temporary.push(format!("{FOLDER}/{}", entry.name))
                }
                // Not ours, so not ours to remove.
                _ => {}
            }
        }
        let ours = ["catalogue.tmp", "FORMAT.tmp"];
        let root = disk.list("")?.into_iter().map(|entry| entry.name);
        files.temporary.extend(root.filter(|name| ours.contains(&name.as_str())));
        Ok(files)
    }
}

/// The rows that might be the newest of their contexts.
struct Candidates {
    /// By the number that names the row's file.
    rows: BTreeMap<u64, Row>,
    /// Whether the catalogue was whole.
    is_sound: bool,
    in_catalogue: BTreeSet<u64>,
}

impl Candidates {
    fn take_from_catalogue(
        &mut self,
        contents: &Contents,
        files: &Files,
    ) -> Result<(), StoreError> {
        for (key, bytes) in &contents.rows {
            match Row::decode(bytes) {
                Ok(row) if row.key.bytes() != *key => self.is_sound = false,
                // The deletion came as far as the file, but not into the catalogue.
                Ok(row) if files.gone.contains(&row.id) => {}
                Ok(row) => {
                    self.in_catalogue.insert(row.id);
                    self.rows.insert(row.id, row);
                }
                Err(RowFault::Newer(found)) => return Err(newer("catalogue.redb", found)),
                Err(RowFault::Damaged) => self.is_sound = false,
            }
        }
        Ok(())
    }

    fn take_from_files(
        &mut self,
        disk: &Disk,
        files: &Files,
        report: &mut OpenReport,
    ) -> Result<(), StoreError> {
        for &id in files.rows.keys().filter(|id| !self.in_catalogue.contains(id)) {
            let file = row_file(id);
            match Row::decode(&disk.read(&file)?.unwrap_or_default()) {
                Ok(row) if row.id == id => drop(self.rows.insert(id, row)),
                Err(RowFault::Newer(found)) => return Err(newer(&file, found)),
                Ok(_) | Err(RowFault::Damaged) => {
                    disk.counters.count_mismatch();
                    report.set_aside.push(disk.set_aside(&file)?);
                }
            }
        }
        Ok(())
    }

    /// The newest row of each context, those first whose segments are all there.
    fn choose(self, files: &Files, is_sound: bool, report: &mut OpenReport) -> Vec<Row> {
        let mut chosen: BTreeMap<Key, (bool, Row)> = BTreeMap::new();
        for (id, row) in self.rows {
            let is_whole = row.segments().iter().all(|id| files.segments.contains_key(id));
            if !is_whole && is_sound && !self.in_catalogue.contains(&id) {
                // Its process was interrupted before the row was true, and told nobody it was.
                continue;
            }
            match chosen.get(&row.key) {
                // Rows come in the order of their numbers: only a broken one is not taken.
                Some((true, _)) if !is_whole => {}
                _ => drop(chosen.insert(row.key.clone(), (is_whole, row))),
            }
        }
        let mut rows = Vec::with_capacity(chosen.len());
        for (key, (is_whole, row)) in chosen {
            if !is_whole {
                report.incomplete.push((key.tenant, key.name));
            }
            report.adopted += u64::from(!self.in_catalogue.contains(&row.id));
            rows.push(row);
        }
        rows
    }
}

fn newer(file: &str, found: u32) -> StoreError {
    StoreError::NewerFormat { file: file.to_owned(), found, supported: row::VERSION }
}

/// Makes the catalogue say what was chosen.
fn update_catalogue(
    catalogue: &mut Catalogue,
    contents: &Contents,
    chosen: &[Row],
) -> Result<(), StoreError> {
    let before: BTreeMap<&[u8], &[u8]> =
        contents.rows.iter().map(|(key, row)| (key.as_slice(), row.as_slice())).collect();
    let mut update = Update::default();
    let mut kept = BTreeSet::new();
    for row in chosen {
        let (key, bytes) = (row.key.bytes(), row.encode());
        kept.insert(key.clone());
        if before.get(key.as_slice()) != Some(&bytes.as_slice()) {
            update.put.push((key, bytes));
        }
    }
    let gone = before.keys().filter(|key| !kept.contains(**key));
    update.remove = gone.map(|key| key.to_vec()).collect();
    if update.put.is_empty() && update.remove.is_empty() {
        return Ok(());
    }
    catalogue.apply(&update)
}

/// A number greater than any that was ever given out, as far as anything tells.
fn next_id(files: &Files, chosen: &[Row]) -> u64 {
    let named = files.segments.keys().chain(files.rows.keys()).chain(&files.gone).copied();
    let meant = chosen.iter().flat_map(|row| row.segments().into_iter().chain([row.id]));
    named.chain(meant).max().unwrap_or(0).saturating_add(1)
}

/// Counts references, and removes what nothing refers to. After damage segments are kept aside
/// instead: what referred to them may be what was damaged.
fn clean(
    disk: &Arc<Disk>,
    files: &Files,
    (chosen, is_sound): (Vec<Row>, bool),
    report: &mut OpenReport,
) -> Result<Ledger, StoreError> {
    let mut ledger = Ledger::default();
    let referred: BTreeSet<u64> = chosen.iter().flat_map(Row::segments).collect();
    let kept: BTreeSet<u64> = chosen.iter().map(|row| row.id).collect();
    for &id in &referred {
        // One that is missing is entered as well: reading it says so.
        let bytes = files.segments.get(&id).copied().unwrap_or(0);
        ledger.add_segment(SegmentCell::durable(disk, id), bytes);
    }
    for row in chosen {
        if !files.rows.contains_key(&row.id) {
            let bytes = row.encode();
            let temporary = format!("{FOLDER}/{:016x}.rtmp", row.id);
            disk.write_whole(&temporary, &row_file(row.id), &|to| to.write_at(0, &bytes))?;
            report.restored += 1;
        }
        let file_bytes = files.rows.get(&row.id).copied().unwrap_or(0);
        ledger.put(Arc::new(row), file_bytes);
    }
    for id in files.rows.keys().filter(|id| !kept.contains(id)) {
        if disk.remove(&row_file(*id)).is_err() {
            ledger.stale_rows().insert(*id);
        }
        report.leftovers.push(row_file(*id));
    }
    for id in files.segments.keys().filter(|id| !referred.contains(id)) {
        if is_sound {
            // One that cannot be removed is found again by the next open.
            let _ = disk.remove(&file_name(*id));
            report.leftovers.push(file_name(*id));
        } else {
            report.set_aside.push(disk.set_aside(&file_name(*id))?);
        }
    }
    for id in &files.gone {
        let _ = disk.remove(&gone_file(*id));
        report.leftovers.push(gone_file(*id));
    }
    for file in &files.temporary {
        let _ = disk.remove(file);
        report.leftovers.push(file.clone());
    }
    Ok(ledger)
}
