for (const plot of document.querySelectorAll("svg[data-plot]")) {
  const data = JSON.parse(plot.dataset.plot), cursor = plot.querySelector(".cursor");
  const tip = plot.closest("figure").querySelector(".tip");
  const hide = () => { tip.hidden = true; cursor.setAttribute("visibility", "hidden"); };
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("pointermove", event => {
    const x = new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.getScreenCTM().inverse()).x;
    const seconds = (x - data.left) / data.width * data.total, index = Math.floor(seconds / data.step);
    if (index < 0 || seconds > data.total) return hide();
    const phase = data.phases.find(phase => seconds >= phase.begins && seconds < phase.ends);
    tip.textContent = [(index * data.step).toFixed(2) + " s" + (phase ? ", " + phase.name : ""),
      ...data.rows.map(row => row.name + ": " + (row.values[index] ?? "-"))].join("\n");
    cursor.setAttribute("x1", x); cursor.setAttribute("x2", x); cursor.setAttribute("visibility", "visible");
    tip.hidden = false;
    const frame = tip.parentElement.getBoundingClientRect(), at = event.clientX - frame.left;
    tip.style.left = Math.max(0, at + (at > frame.width / 2 ? -tip.offsetWidth - 14 : 14)) + "px";
    tip.style.top = event.clientY - frame.top + 14 + "px";
  });
}
