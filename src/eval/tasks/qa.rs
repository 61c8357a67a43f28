//! Questions and answers: real questions, whose paragraph lies among others. Texts in SQuAD's form
//! (arXiv 1606.05250).

use crate::eval::case::{Case, Measure, Scene};
use crate::eval::task::N_QUESTIONS;
use crate::ids::ByteSpan;

/// A paragraph with its questions.
#[derive(Clone, Debug, PartialEq)]
pub struct Paragraph {
    /// The text.
    pub context: String,
    /// Each with the answers that count as right.
    pub questions: Vec<(String, Vec<String>)>,
}

impl Paragraph {
    /// The paragraphs of a file in SQuAD's form.
    ///
    /// # Errors
    /// When the text is not that.
    pub fn parse_squad(text: &str) -> Result<Vec<Self>, serde_json::Error> {
        let file: wire::File = serde_json::from_str(text)?;
        let paragraphs = file.data.into_iter().flat_map(|article| article.paragraphs);
        Ok(paragraphs.map(Self::from).collect())
    }
}

/// As files write it.
mod wire {
    use serde::Deserialize;

    #[derive(Deserialize)]
    pub struct File {
        pub data: Vec<Article>,
    }

    #[derive(Deserialize)]
    pub struct Article {
        pub paragraphs: Vec<Paragraph>,
    }

    #[derive(Deserialize)]
    pub struct Paragraph {
        pub context: String,
        pub qas: Vec<Question>,
    }

    #[derive(Deserialize)]
    pub struct Question {
        pub question: String,
        pub answers: Vec<Answer>,
    }

    #[derive(Deserialize)]
    pub struct Answer {
        pub text: String,
    }

    impl From<Paragraph> for super::Paragraph {
        fn from(paragraph: Paragraph) -> Self {
            let answers = |question: &Question| {
                question.answers.iter().map(|answer| answer.text.clone()).collect()
            };
            let questions = paragraph.qas.iter();
            Self {
                questions: questions.map(|each| (each.question.clone(), answers(each))).collect(),
                context: paragraph.context,
            }
        }
    }
}

/// [`N_QUESTIONS`] questions of one of `paragraphs`, at `depth` of about `n_tokens` of others; alone
/// where `n_tokens` is 0. `topic` draws what is asked, `rng` the others.
pub fn scene(
    paragraphs: &[Paragraph],
    (n_tokens, depth): (usize, f32),
    (topic, rng): (&mut fastrand::Rng, &mut fastrand::Rng),
    count: &dyn Fn(&str) -> usize,
) -> Scene {
    let most = paragraphs.iter().map(|each| each.questions.len()).max().unwrap_or(0);
    let can_be_asked = |i: &usize| paragraphs[*i].questions.len() >= N_QUESTIONS.min(most);
    let topics: Vec<usize> = (0..paragraphs.len()).filter(can_be_asked).collect();
    let asked = topics[topic.usize(..topics.len())];
    let own = &paragraphs[asked];
    let mut questions = own.questions.clone();
    topic.shuffle(&mut questions);
    let mut others: Vec<usize> = (0..paragraphs.len()).filter(|i| *i != asked).collect();
    rng.shuffle(&mut others);
    let mut left = n_tokens.saturating_sub(count(&own.context));
    let fits = |i: &usize| {
        let n = count(&paragraphs[*i].context) + 2;
        let fits = n <= left;
        left = left.saturating_sub(n);
        fits
    };
    let mut order: Vec<usize> = others.into_iter().take_while(fits).collect();
    order.insert((order.len() as f32 * depth).round() as usize, asked);
    let mut document = String::new();
    let mut evidence = Vec::new();
    for i in order {
        if !document.is_empty() {
            document += "\n\n";
        }
        let start = document.len();
        document += &paragraphs[i].context;
        if i == asked {
            evidence.push(ByteSpan { start, end: document.len() });
        }
    }
    let ask = |(question, answers): (String, Vec<String>)| Case {
        depth: (n_tokens > 0).then_some(depth),
        question: format!("{question} Answer in a few words of the text above."),
        // A quotation mark asks for a phrase where a small model would else make a sentence of it.
        answer_start: "The answer is \"".to_owned(),
        answers,
        evidence: evidence.clone(),
        measure: Measure::Words,
    };
    // Where no paragraph has so many, some are asked again.
    let cases = questions.into_iter().cycle().take(N_QUESTIONS).map(ask).collect();
    Scene { document, cases }
}
