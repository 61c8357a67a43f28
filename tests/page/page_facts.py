"""JavaScript that measures the page, run by page_test.py in the page itself."""

# Keeps all shares of progress that are shown from now on.
PROGRESS_WATCH = """
window.progressSeen = [];
new MutationObserver(() => {
  const shown = document.querySelector('.reading:not([hidden]) .reading-share')?.textContent;
  const share = parseInt(shown?.replace('< ', ''));
  if (!Number.isNaN(share)) window.progressSeen.push(share);
}).observe(document.querySelector('main'),
  { childList: true, subtree: true, attributes: true, characterData: true });
"""

# Drops a file of a name and a content upon the page.
DROP = """
const carried = new DataTransfer();
carried.items.add(new File([arguments[1]], arguments[0], { type: 'text/plain' }));
for (const type of ['dragenter', 'dragover', 'drop']) {
  document.querySelector('main').dispatchEvent(
    new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: carried }));
}
"""

# By how many pixels the page is wider than the window, and what sticks out; null where it fits.
SIDEWAYS = """
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth <= width) return null;
return [...document.querySelectorAll('body *')].filter((e) =>
  e.checkVisibility() && e.getBoundingClientRect().right > width + 0.5)
  .map((e) => e.className || e.tagName).slice(0, 5).join(', ') || 'something';
"""

# All words whose contrast is less than WCAG AA asks for.
CONTRAST = """
const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
const rgba = (colour) => {
  pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data];
};
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const colour = rgba(getComputedStyle(at).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return [255, 255, 255, 255];
};
const pale = [];
for (const node of document.querySelectorAll('body *')) {
  const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
  const seen = node.checkVisibility({ opacityProperty: true });
  if (!own || !seen || node.closest(':disabled, .unseen')) continue;
  const style = getComputedStyle(node);
  const [a, b] = [light(rgba(style.color)), light(ground(node))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) pale.push(`${node.className || node.tagName} ${ratio.toFixed(2)}`);
}
return [...new Set(pale)];
"""

# Notes whatever gets the focus without showing it. A field in a frame shows it by the frame.
FOCUS_WATCH = """
window.unseen = [];
document.addEventListener('focusin', ({ target }) => {
  const style = getComputedStyle(target.closest('.box, .choose') ?? target);
  const shown = style.outlineStyle !== 'none' || style.boxShadow !== 'none';
  if (target.tabIndex >= 0 && !shown)
    window.unseen.push(target.className || target.id || target.tagName);
});
"""

# What was fetched from elsewhere than the page's own host.
OUTSIDE = """
return performance.getEntriesByType('resource').map((entry) => entry.name)
  .filter((url) => new URL(url).origin !== location.origin);
"""
