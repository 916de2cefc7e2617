"""Keyboard, screen reader, phone, colours, policy."""

from __future__ import annotations

import pytest

from tests.page.driver import Driver

pytest.importorskip("playwright", reason="playwright drives the browser")

NARROW = {"width": 360, "height": 740}
# The contrast of every text against what is behind it; WCAG's formula.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => {
    const [r, g, b] = rgb(color).slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (rgb(color)[3] === 255) return color;
    }
    return "white";
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const hasText = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!hasText || !element.checkVisibility() || element.closest(".unseen, .skip, :disabled")) {
      continue;
    }
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push(`${element.className}: ${contrast.toFixed(2)}`);
  }
  return found;
}"""


def test_a_chat_needs_the_keyboard_only(page: Driver) -> None:
    page.open()
    keyboard = page.page.keyboard
    keyboard.press("?")
    assert page.page.get_by_role("dialog", name="Keyboard map").is_visible()
    keyboard.press("Escape")
    page.page.wait_for_selector("dialog", state="detached")
    keyboard.press("c")
    keyboard.type("First question.")
    keyboard.press("Enter")
    page.page.wait_for_selector("[data-running]")
    page.wait_for_answer()
    assert page.texts("user") == ["First question."]
    old = page.session_id
    keyboard.press("Escape")  # leaves the field
    keyboard.press("e")
    keyboard.press("Control+a")
    keyboard.type("Other question.")
    keyboard.press("Enter")
    page.page.wait_for_selector(".message-user:has-text('Other question.')")
    page.wait_for_answer()
    assert page.session_id != old
    keyboard.press("Escape")
    keyboard.press("k")
    assert page.page.evaluate("document.activeElement.dataset.messageId") is not None
    keyboard.press("m")
    assert not page.page.get_by_role("switch", name="Streaming mode").is_checked()
    keyboard.press("n")
    page.page.wait_for_selector(".welcome")
    keyboard.type("n is a letter here")
    assert page.page.input_value("#composer") == "n is a letter here"


def test_single_keys_can_be_switched_off(page: Driver) -> None:
    page.open(hasShortcuts=False)
    page.page.keyboard.press("?")
    assert page.page.locator("dialog").count() == 0


def test_every_control_has_a_name_and_the_answer_is_announced(page: Driver) -> None:
    page.open()
    page.say("Hello.")
    nameless = page.page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, select, [role=img]")]
          .filter((e) => !(e.ariaLabel || e.labels?.length || e.textContent.trim()))
          .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    status = page.page.get_by_role("status").inner_text()
    assert status.startswith("Answer:")
    assert page.page.locator("h1").count() == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_in_both_colours(page: Driver, theme: str) -> None:
    page.open(theme=theme)
    page.fill_window(700)
    assert page.page.evaluate(CONTRAST) == []
    page.page.keyboard.press("Escape")
    page.page.keyboard.press(",")
    page.page.wait_for_selector("dialog[open]")
    assert page.page.evaluate(CONTRAST) == []


def test_the_colours_follow_the_system_until_chosen(page: Driver) -> None:
    page.open()

    def paper() -> str:
        return str(page.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page.page.emulate_media(color_scheme="light")
    light = paper()
    page.page.emulate_media(color_scheme="dark")
    dark = paper()
    assert light != dark
    page.page.keyboard.press("t")
    assert paper() == light
    page.page.keyboard.press("t")
    page.page.emulate_media(color_scheme="light")
    assert paper() == dark


def test_a_phone_shows_all_without_scrolling_sideways(page: Driver) -> None:
    page.page.set_viewport_size(NARROW)
    page.open()
    page.say("Hello, " + "averyveryverylongwordthatdoesnotbreak" * 4)
    for label in ("Sessions", "Settings"):
        width = page.page.evaluate("document.documentElement.scrollWidth")
        assert width <= NARROW["width"]
        page.click(label)
        if label == "Sessions":
            page.page.locator(".session").first.wait_for()
            page.page.keyboard.press("Escape")
            page.page.wait_for_selector("[data-sidebar=closed]")
    box = page.page.locator("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= NARROW["width"]


def test_the_policy_stops_what_does_not_belong_to_the_page(page: Driver) -> None:
    page.open()
    blocked = page.page.evaluate(
        """async () => {
          const found = [];
          const note = (event) => found.push(event.effectiveDirective);
          document.addEventListener("securitypolicyviolation", note);
          const script = document.createElement("script");
          try {
            script.textContent = "window.broken = true";
            document.head.append(script);
          } catch {}
          const image = new Image();
          image.src = "https://other.test/x.png";
          await fetch("https://other.test/").catch(() => {});
          await new Promise((resolve) => setTimeout(resolve, 100));
          return [found, window.broken ?? false];
        }"""
    )
    assert blocked[1] is False
    assert {"img-src", "connect-src"} <= set(blocked[0])
    page.errors.clear()  # these breaches were meant
    page.hosts.discard("other.test")
