// Texts that stand out from what is behind them by less than WCAG 2.1 asks for (AA: 4.5 to 1), with their ratio.
() => {
  const channels = (text) => text.match(/[\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const hasText = (e) => [...e.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  return [...document.querySelectorAll("header *, aside *, .controls *")]
    .filter((e) => hasText(e) && e.checkVisibility() && !e.closest(":disabled"))
    .map((e) => {
      const pair = [luminance(channels(getComputedStyle(e).color)), luminance(ground(e))].sort((a, b) => b - a);
      return [Math.round((100 * (pair[0] + 0.05)) / (pair[1] + 0.05)) / 100, e.outerHTML.slice(0, 80)];
    })
    .filter(([ratio]) => ratio < 4.5);
}
