//! What does `examples/voyage.txt` say, and how was it made? A ship's log of ninety days,
//! longer than the default model was trained to read, with one fact in it to ask for.
//!
//! `cargo run --example voyage` writes the file again, the same every time: the entries are put
//! together from sentences drawn by a seeded generator, none twice before its pile is used up.

use std::fmt::Write;
use std::path::Path;

/// Decides everything.
const SEED: u64 = 1868;

/// The fact to ask for, and how far into the voyage it is written down.
const FACT: &str = "The pass key of the chart room is 71946.";
const FACT_DAY: usize = 33;

/// The first day, as days since 1 January 1868.
const FIRST_DAY: usize = 64;

const CALENDAR: [(&str, usize); 12] = [
    ("January", 31),
    ("February", 29),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
];
// 1 January 1868 was a Wednesday.
const WEEKDAYS: [&str; 7] =
    ["Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday"];

/// A place where the ship lies some days.
struct Port {
    name: &'static str,
    /// Degrees north (south: negative).
    latitude: f64,
    /// Degrees east (west: negative).
    longitude: f64,
    days_at_sea_before: usize,
    days_in_port: usize,
    taken_aboard: &'static str,
}

const ROUTE: [Port; 6] = [
    port("Bristol", (51.4, -2.6), (0, 1), "bales of broadcloth, tools and window glass"),
    port("Funchal", (32.6, -16.9), (12, 2), "wine in quarter casks and baskets of onions"),
    port("Porto Grande", (16.9, -25.0), (8, 2), "coal for the galley and forty goats"),
    port("Bahia", (-13.0, -38.5), (15, 3), "sugar, tobacco and oranges"),
    port("Cape Town", (-33.9, 18.4), (22, 3), "flour, dried fruit and salted hides"),
    port("Port Louis", (-20.2, 57.5), (18, 2), "sugar in sacks, vanilla and ebony"),
];

const fn port(
    name: &'static str,
    (latitude, longitude): (f64, f64),
    (days_at_sea_before, days_in_port): (usize, usize),
    taken_aboard: &'static str,
) -> Port {
    Port { name, latitude, longitude, days_at_sea_before, days_in_port, taken_aboard }
}

const PEOPLE: [&str; 14] = [
    "Mr. Hallam, the first mate,",
    "Mr. Pryce, the second mate,",
    "the boatswain, Tobias Reed,",
    "the carpenter, old Anders Holm,",
    "the sailmaker, Jonah Kitto,",
    "the cook, Samuel Bright,",
    "the ship's boy, William Tull,",
    "the surgeon, Dr. Ferrier,",
    "the cooper, Peter Lund,",
    "the steward, Mr. Osgood,",
    "able seaman Davy Morgan",
    "able seaman Luis Freitas",
    "able seaman Henrik Dahl",
    "able seaman Ned Carrow",
];

const WINDS: [&str; 8] =
    ["north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west"];

const WEATHER: [&str; 22] = [
    "A fresh breeze from the {wind} and a clear sky.",
    "Light airs from the {wind}, the sea smooth as oil.",
    "Wind {wind}, moderate; haze along the horizon until noon.",
    "Strong gale from the {wind}, with rain that came in level over the rail.",
    "Calm at daybreak; toward evening a breath of wind from the {wind}.",
    "Squalls from the {wind} all the forenoon, and between them hot sun.",
    "Steady wind from the {wind}, small white clouds, a long easy swell.",
    "Thick fog in the morning watch; it lifted when the {wind} wind found us.",
    "Overcast and close, the wind unsteady about the {wind}.",
    "Hard rain before dawn, then a fine drying breeze from the {wind}.",
    "Wind {wind} and rising; the glass has fallen two tenths since yesterday.",
    "A bright cold morning, the wind {wind} and the spray sharp as gravel.",
    "Thunder in the {wind} through the middle watch, but no wind came of it.",
    "The {wind} wind holds, and nobody speaks of it for fear of its leaving.",
    "Confused sea, the old swell against a new wind from the {wind}.",
    "A red dawn, and by ten o'clock the wind had gone round to the {wind}.",
    "Fine weather; the decks dry for the first time this week, wind {wind}.",
    "Drizzle and a low sky, the wind backing toward the {wind}.",
    "A warm wind from the {wind} that smelled of land, though none is near.",
    "Half a gale from the {wind} until four bells, then it eased.",
    "Stars very clear all night; wind {wind}, a whole-sail breeze.",
    "Heavy dew at sunrise, then a gentle wind out of the {wind}.",
];

const SAILING: [&str; 20] = [
    "Took in the royals at two bells and set them again before supper.",
    "Double-reefed the topsails and sent down the fore royal yard.",
    "All plain sail set, with studding sails to windward, and she goes sweetly.",
    "Wore ship at noon and stood to the southward.",
    "Hove the log at every bell; our best was {knots} knots.",
    "Made {miles} miles since yesterday by dead reckoning.",
    "The current has set us {small} miles to leeward in the night.",
    "Braced the yards up sharp and kept her full and by.",
    "Shifted the main topsail for the old one, which is good enough for these winds.",
    "The fore topgallant sheet parted; it was spliced within the half hour.",
    "Ran before it under foresail and close-reefed main topsail.",
    "Tacked twice to keep clear of the broken water on the chart.",
    "Logged {knots} knots in the first watch, which is handsome for a foul bottom.",
    "Set up the lee rigging, which had gone slack in the heat.",
    "Drifted with the courses hauled up, and made no more than {small} miles.",
    "Bent the storm trysail and did not need it.",
    "Hauled the mainsail up to keep it from slatting itself to pieces.",
    "Stood on under easy sail, because I will not raise that coast in the dark.",
    "Made {miles} miles, and the mate has drawn a flag on the chart to mark it.",
    "Steered small all day, with a good hand at the wheel and no need to speak to him.",
];

const WORK: [&str; 26] = [
    "{person} was set to tarring the shrouds and did half of one side.",
    "{person} found a leak by the after hatch and stopped it with oakum and pitch.",
    "{person} counted the water casks: {count} full, {small} broached.",
    "{person} mended the hen coop, so that we may keep the {small} hens that are left.",
    "{person} overhauled the log lines and threw two of them out.",
    "{person} has begun a new awning from the worn-out jib.",
    "{person} caulked the seams of the long boat while the weather allowed it.",
    "{person} sounded the pumps: {small} inches in the well, no more than usual.",
    "{person} scraped the skylight frames and oiled them.",
    "{person} went over the side in a bowline to look at the rudder irons.",
    "{person} oiled the clocks and set the cabin one by the noon sight.",
    "{person} brought up the spare cable to dry, all {count} fathoms of it.",
    "{person} turned the cheese and aired the bread room.",
    "{person} made {small} new handles for the deck brooms out of a broken oar.",
    "{person} greased the masts from the trucks downward and spilled some on the cook.",
    "{person} painted the inside of the bulwarks green, as far as the paint went.",
    "{person} rove new lanyards on the port side.",
    "{person} cleaned the lamps and found the binnacle wick burned down to nothing.",
    "{person} sewed canvas covers for the boats' oars.",
    "{person} holystoned the quarterdeck with the whole of the starboard watch.",
    "{person} whitewashed the galley, to the cook's displeasure.",
    "{person} took stock of the sail locker and found mildew in one staysail.",
    "{person} filed the teeth of the big saw and cut up the sprung studding-sail boom.",
    "{person} restowed the forward hold, where {small} cases had worked loose.",
    "{person} laid out the carpenter's chest in the sun and oiled every iron in it.",
    "{person} patched the fore topsail where it had chafed against the stay.",
];

const LIFE: [&str; 30] = [
    "{person} has a swollen jaw and will not have the tooth drawn.",
    "{person} caught a bonito of {small} pounds from the jib boom, and we ate it at supper.",
    "{person} saw a whale blow three times to the north of us.",
    "{person} told the story of the wreck of the Amelia again, and it has grown.",
    "{person} played the concertina in the dog watch and the men danced.",
    "{person} scalded a hand in the galley; it was dressed with sweet oil and lint.",
    "{person} swears there is a rat in the flour, and has set the cat to watch there.",
    "{person} lost a hat overboard and asked, not quite in jest, to go back for it.",
    "{person} has begun to learn navigation and worked the noon sight within {small} miles.",
    "{person} quarrelled with the cook about the coffee, which is mostly burnt crust.",
    "{person} counted {count} flying fish on the deck at dawn.",
    "{person} sighted a brig hull down to the eastward; she did not answer our flags.",
    "{person} found a swallow asleep in the folds of the mainsail and let it lie.",
    "{person} shaved off his beard on a wager, or would have, had the razor been sharper.",
    "{person} is down with a fever and has been given bark and rest.",
    "{person} read aloud from the almanac until everyone knew the tides of Leith.",
    "{person} carved a small ship out of bone, rigged it with hair, and gave it away.",
    "{person} dreamed of bells and would not go aloft before breakfast.",
    "{person} won {small} shillings at draughts and lost them again the same night.",
    "{person} put a barrel out to catch rain, and we all washed our shirts in it.",
    "{person} saw the green flash at sunset and made each of us promise to believe it.",
    "{person} asked leave to keep a land crab, which I refused.",
    "{person} slept through the change of the watch and was woken with a bucket.",
    "{person} showed the boy how to make a Turk's head, and now there is one on every rail.",
    "{person} threw a line to a turtle and very nearly followed it in.",
    "{person} wrote a letter of {small} pages, though no ship is there to carry it.",
    "{person} made a plum duff for Sunday, heavy enough to anchor by.",
    "{person} complains that the fiddle strings have all gone soft in the damp.",
    "{person} saw a light to leeward in the middle watch; it proved to be a star.",
    "{person} has taught the goat to stand on the capstan.",
];

const IN_PORT: [&str; 12] = [
    "Lay at anchor in {fathoms} fathoms, good holding ground, and sent the boats for water.",
    "The agent came aboard with letters, {small} of them for the forecastle.",
    "Took in {cargo}, and the hatches were closed by sunset.",
    "The customs officer counted everything twice and drank our sherry once.",
    "Gave the port watch leave until midnight; all but one came back by themselves.",
    "Bought fresh beef, {count} cabbages and a sack of limes.",
    "The harbour master moved us to another berth to make room for the mail steamer.",
    "Paid the washing woman and the pilot, and disputed both bills.",
    "{person} went ashore to be fitted for boots and returned with a parrot instead.",
    "Scrubbed the waterline from the boats while the holds were open.",
    "A church procession passed along the mole, and we lowered the ensign to it.",
    "Heeled the ship with the guns of the old battery for a landmark, and cleaned the copper.",
];

const CLOSING: [&str; 16] = [
    "Nothing more to remark.",
    "All well aboard.",
    "Lookouts doubled for the night.",
    "The men are in good heart.",
    "Served out lime juice as usual.",
    "Lamps trimmed and the watch set at eight.",
    "Prayers were read at four bells.",
    "Wound the chronometers.",
    "No sail in sight.",
    "The pumps sucked dry in ten minutes.",
    "Pumped ship at six and at midnight.",
    "I turned in at ten and was not called.",
    "The barometer stands at thirty inches and steady.",
    "Grog at sundown, half a gill a man.",
    "May the wind hold.",
    "Signed the day's work with the mate.",
];

/// A generator of numbers by Steele, Lea and Flood ("SplitMix", 2014).
struct Dice(u64);

impl Dice {
    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

/// A pile of sentences, drawn from until it is empty and then shuffled anew.
struct Pile {
    all: &'static [&'static str],
    left: Vec<&'static str>,
}

impl Pile {
    fn new(all: &'static [&'static str]) -> Self {
        Self { all, left: Vec::new() }
    }

    fn draw(&mut self, dice: &mut Dice) -> &'static str {
        if self.left.is_empty() {
            self.left = self.all.to_vec();
        }
        self.left.swap_remove(dice.below(self.left.len()))
    }
}

/// Everything that an entry is written from.
struct Scribe {
    dice: Dice,
    people: Pile,
    weather: Pile,
    sailing: Pile,
    work: Pile,
    life: Pile,
    in_port: Pile,
    closing: Pile,
}

impl Scribe {
    fn new() -> Self {
        Self {
            dice: Dice(SEED),
            people: Pile::new(&PEOPLE),
            weather: Pile::new(&WEATHER),
            sailing: Pile::new(&SAILING),
            work: Pile::new(&WORK),
            life: Pile::new(&LIFE),
            in_port: Pile::new(&IN_PORT),
            closing: Pile::new(&CLOSING),
        }
    }

    /// A sentence with its gaps filled.
    fn fill(&mut self, sentence: &str, cargo: &str) -> String {
        let person =
            if sentence.contains("{person}") { self.people.draw(&mut self.dice) } else { "" };
        let capital: String = person.chars().take(1).flat_map(char::to_uppercase).collect();
        let person = capital + person.get(1..).unwrap_or_default();
        let mut number = |from: usize, to: usize| (from + self.dice.below(to - from)).to_string();
        sentence
            .replace("{person}", &person)
            .replace("{wind}", WINDS[number(0, 8).parse::<usize>().unwrap_or(0)])
            .replace("{knots}", &number(6, 12))
            .replace("{miles}", &number(90, 230))
            .replace("{small}", &number(2, 10))
            .replace("{count}", &number(11, 60))
            .replace("{fathoms}", &number(5, 14))
            .replace("{cargo}", cargo)
    }

    /// The sentences of a day at sea.
    fn at_sea(&mut self) -> Vec<String> {
        let mut drawn = vec![self.weather.draw(&mut self.dice), self.sailing.draw(&mut self.dice)];
        drawn.push(self.work.draw(&mut self.dice));
        drawn.push(self.life.draw(&mut self.dice));
        if self.dice.below(2) == 0 {
            drawn.push(self.life.draw(&mut self.dice));
        }
        drawn.push(self.closing.draw(&mut self.dice));
        drawn.into_iter().map(|sentence| self.fill(sentence, "")).collect()
    }

    /// The sentences of a day in port.
    fn in_port(&mut self, cargo: &str) -> Vec<String> {
        let mut drawn = vec![self.weather.draw(&mut self.dice)];
        drawn.extend([(); 3].map(|()| self.in_port.draw(&mut self.dice)));
        drawn.push(self.life.draw(&mut self.dice));
        drawn.into_iter().map(|sentence| self.fill(sentence, cargo)).collect()
    }
}

/// The whole log.
pub fn log() -> String {
    let mut text = String::from(
        "LOG OF THE BARQUE MERIDIAN\n\nKept by her master, Captain Edmund Varley, on a voyage from \
         Bristol to Port Louis in the year 1868.\n",
    );
    let mut scribe = Scribe::new();
    let mut day = 0;
    for (idx, port) in ROUTE.iter().enumerate() {
        for at_sea in 1..=port.days_at_sea_before {
            let from = &ROUTE[idx.saturating_sub(1)];
            let way = at_sea as f64 / (port.days_at_sea_before + 1) as f64;
            let place = position(from, port, way);
            write_entry(&mut text, day, &place, scribe.at_sea());
            day += 1;
        }
        for _ in 0..port.days_in_port {
            let place = format!("At {}", port.name);
            write_entry(&mut text, day, &place, scribe.in_port(port.taken_aboard));
            day += 1;
        }
    }
    text.push_str("\nHere ends the log of the outward voyage.\n");
    text
}

fn write_entry(text: &mut String, day: usize, place: &str, mut sentences: Vec<String>) {
    if day == FACT_DAY {
        sentences.insert(sentences.len() - 1, FACT.to_owned());
    }
    let line = writeln!(text, "\n{}. {place}. {}", date(day), sentences.join(" "));
    line.expect("because writing to a string does not fail");
}

/// Where the ship is, `way` of the way between two ports.
fn position(from: &Port, to: &Port, way: f64) -> String {
    let between = |a: f64, b: f64| a + (b - a) * way;
    let degrees = |value: f64, positive: &str, negative: &str| {
        let minutes = (value.abs() * 60.0).round() as u32;
        let side = if value < 0.0 { negative } else { positive };
        format!("{}\u{b0}{:02}' {side}", minutes / 60, minutes % 60)
    };
    let latitude = degrees(between(from.latitude, to.latitude), "N", "S");
    let longitude = degrees(between(from.longitude, to.longitude), "E", "W");
    format!("Noon position {latitude}, {longitude}")
}

/// The date of a day of the voyage.
fn date(day: usize) -> String {
    let since_new_year = FIRST_DAY + day;
    let weekday = WEEKDAYS[since_new_year % 7];
    let mut rest = since_new_year;
    for (month, days) in CALENDAR {
        if rest < days {
            return format!("{weekday}, {} {month}", rest + 1);
        }
        rest -= days;
    }
    unreachable!("the voyage ends within the year")
}

fn main() -> std::io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/voyage.txt");
    std::fs::write(&path, log())?;
    println!("wrote {}", path.display());
    Ok(())
}
