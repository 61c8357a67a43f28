//! How many words has an answer in common with the right one? SQuAD's F1 (arXiv 1606.05250): without
//! case, punctuation and articles.

/// The best F1 of `answer` with one of `right`, from 0 to 1.
pub fn share_of_words(answer: &str, right: &[String]) -> f64 {
    let answer = words(answer);
    right.iter().map(|right| f1(&answer, &words(right))).fold(0.0, f64::max)
}

/// The first line that says something.
pub fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or("").trim_end()
}

fn f1(answer: &[String], right: &[String]) -> f64 {
    let mut left = right.to_vec();
    let mut n_common = 0;
    for word in answer {
        if let Some(at) = left.iter().position(|other| other == word) {
            left.swap_remove(at);
            n_common += 1;
        }
    }
    if n_common == 0 {
        return if answer.is_empty() && right.is_empty() { 1.0 } else { 0.0 };
    }
    2.0 * f64::from(n_common) / (answer.len() + right.len()) as f64
}

fn words(text: &str) -> Vec<String> {
    let plain: String =
        text.to_lowercase().chars().filter(|c| c.is_alphanumeric() || c.is_whitespace()).collect();
    let is_article = |word: &str| matches!(word, "a" | "an" | "the");
    plain.split_whitespace().filter(|word| !is_article(word)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f1_is_that_of_squad() {
        let check = |answer: &str, right: &[&str], expected: f64| {
            let right: Vec<String> = right.iter().map(|text| (*text).to_owned()).collect();
            let found = share_of_words(answer, &right);
            assert!((found - expected).abs() < 1e-9, "{answer}: {found}, not {expected}");
        };
        check("The Denver Broncos.", &["Denver Broncos"], 1.0);
        check("It was Denver", &["Denver Broncos"], 0.4);
        check("Carolina", &["Denver Broncos", "carolina"], 1.0);
        check("two two", &["two"], 2.0 / 3.0);
        check("nothing", &["all"], 0.0);
        check("", &["all"], 0.0);
    }

    #[test]
    fn an_answer_is_its_first_line() {
        assert_eq!(first_line("\n Denver \nand more"), "Denver");
        assert_eq!(first_line(" \n "), "");
    }
}
