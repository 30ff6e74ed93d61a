"""The page as a person sees it, in a real Chromium: sorting, search, curve, tree, themes, escaping.

Skipped where no Chromium and ChromeDriver are installed (Debian: chromium, chromium-driver).
"""

import json
import shutil
import unicodedata

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.analysis.conftest import EVIL_IMAGES, EVIL_NAMES

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))),
               None)
DRIVER = shutil.which('chromedriver')
pytestmark = pytest.mark.skipif(BROWSER is None or DRIVER is None,
                                reason='no chromium and chromedriver on this machine')

FLAGS = ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
         '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--window-size=1280,900')
WIDE, PHONE = (1280, 900), (375, 800)


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f'--user-data-dir={tmp_path_factory.mktemp("profile")}'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, reported):
    """The demo's report, freshly opened."""
    return opened(browser, reported)


def opened(browser, folder):
    browser.set_window_size(*WIDE)
    browser.get('about:blank')
    for log in ('browser', 'performance'):
        browser.get_log(log)  # what was before is gone then
    browser.get((folder / 'index.html').as_uri())
    return browser


def rows(page):
    """The texts of the shown rows of the table of classes."""
    return page.execute_script('''
        return Array.from(document.querySelectorAll('#class-table tbody tr[data-class]'))
            .filter((row) => row.offsetParent !== null)
            .map((row) => Array.from(row.cells, (cell) => cell.innerText));''')


def plain(name):
    """For sorting: without accents and capitals."""
    return unicodedata.normalize('NFKD', name).encode('ascii', 'ignore').decode().casefold()


def head(page, name):
    return next(button for button in page.find_elements(By.CSS_SELECTOR, '#class-table th button')
                if button.text.split()[0] == name)


def click(page, element):
    page.execute_script('arguments[0].scrollIntoView({block: "center"})', element)
    element.click()


def test_it_opens_without_a_complaint_and_without_the_network(page):
    assert page.title == 'better.csv on validation'
    assert page.get_log('browser') == []
    asked = [message['params']['request']['url'] for entry in page.get_log('performance')
             for message in [json.loads(entry['message'])['message']]
             if message['method'] == 'Network.requestWillBeSent']
    assert any(url.startswith('file:') for url in asked)
    assert not [url for url in asked if not url.startswith(('file:', 'data:', 'about:'))]


def test_every_picture_is_shown(page):
    for figure in page.find_elements(By.TAG_NAME, 'img'):
        page.execute_script('arguments[0].scrollIntoView()', figure)
        WebDriverWait(page, 10).until(lambda _, figure=figure: page.execute_script(
            'return arguments[0].complete && arguments[0].naturalWidth > 100', figure))
    for plot in page.find_elements(By.CSS_SELECTOR, '.plot svg'):
        assert plot.size['width'] > 200 and plot.size['height'] > 100


def test_a_click_on_a_heading_sorts_and_another_one_turns_round(page):
    by_name = rows(page)
    for name, column in (('AP', 1), ('true', 3)):
        click(page, head(page, name))
        values = [float(row[column].replace(',', '')) for row in rows(page) if row[column] != '–']
        assert values == sorted(values, reverse=True) and len(set(values)) > 1
        click(page, head(page, name))
        again = [float(row[column].replace(',', '')) for row in rows(page) if row[column] != '–']
        assert again == sorted(values)
        known = [row[column] != '–' for row in rows(page)]
        assert known == sorted(known, reverse=True)  # what has no value comes last
    click(page, head(page, 'class'))
    assert [row[0] for row in rows(page)] == sorted((row[0] for row in by_name), key=plain)


def test_search_leaves_the_classes_that_have_the_text_in_name_or_mid(page):
    everything = rows(page)
    box = page.find_element(By.ID, 'search')
    name = everything[3][0]
    box.send_keys(name.upper())
    found = [row[0] for row in rows(page)]
    assert name in found and len(found) < len(everything)
    assert all(name.lower() in one.lower() for one in found)
    assert page.find_element(By.ID, 'shown').text == f'{len(found)} classes'
    box.send_keys(Keys.CONTROL, 'a')
    box.send_keys('/m/0demo')
    assert len(rows(page)) == len(everything)
    box.send_keys(' nothing has this')
    assert rows(page) == []


def test_a_click_on_a_class_shows_its_curve_and_costs_and_another_one_hides_them(page, reported):
    told = json.loads((reported / 'report.json').read_text(encoding='utf-8'))
    one = max(told['classes'], key=lambda one: len(one['curve']))
    button = page.find_element(By.CSS_SELECTOR, f'#class-{one["class_id"]} .open')
    click(page, button)
    detail = page.find_element(By.CSS_SELECTOR, f'#class-{one["class_id"]} + .detail')
    dots = detail.find_elements(By.CSS_SELECTOR, '.curve circle')
    assert len(dots) == len(one['curve']) > 2
    assert detail.find_element(By.CSS_SELECTOR, '.curve .steps').size['width'] > 50
    title = dots[0].find_element(By.TAG_NAME, 'title').get_attribute('textContent')
    recall, precision, score = one['curve'][0]
    assert title == f'recall {recall:.3f}, precision {precision:.3f}, score {score:.3f}'
    costs = [row.text for row in detail.find_elements(By.TAG_NAME, 'tr')]
    assert len(costs) == len(one['errors']) and costs[0].startswith('wrong class ')
    low, high = one['AP_interval']['low'], one['AP_interval']['high']
    assert f'{low:.4f} to {high:.4f}' in detail.text
    click(page, button)
    assert page.find_elements(By.CLASS_NAME, 'detail') == []
    button.send_keys(Keys.ENTER)  # and without a mouse
    assert len(page.find_elements(By.CLASS_NAME, 'detail')) == 1
    click(page, head(page, 'AP'))
    assert page.find_elements(By.CLASS_NAME, 'detail') == []


def test_the_tree_opens_closes_and_leads_to_the_table(page):
    leaves = page.find_elements(By.CSS_SELECTOR, '.tree .line a')
    assert any(leaf.is_displayed() for leaf in leaves)
    click(page, page.find_element(By.ID, 'close-all'))
    nested = page.find_elements(By.CSS_SELECTOR, '.tree details .line a')
    assert nested and not any(leaf.is_displayed() for leaf in nested)
    click(page, page.find_element(By.ID, 'open-all'))
    assert all(leaf.is_displayed() for leaf in nested)
    target = nested[0].get_attribute('href').rpartition('#')[2]
    click(page, nested[0])
    WebDriverWait(page, 10).until(lambda _: page.find_elements(
        By.CSS_SELECTOR, f'#{target} + .detail'))


def brightness(page):
    """Of paper and of ink, 0 to 255."""
    style = page.execute_script('const s = getComputedStyle(document.body);'
                                'return [s.backgroundColor, s.color]')
    return [sum(int(part) for part in colour[4:-1].split(',')) / 3 for colour in style]


def test_it_is_light_and_dark_as_the_system_is_and_at_a_click(page, tmp_path):
    for scheme in ('light', 'dark'):
        page.execute_cdp_cmd('Emulation.setEmulatedMedia', {
            'features': [{'name': 'prefers-color-scheme', 'value': scheme}]})
        paper, ink = brightness(page)
        assert (paper > 200 and ink < 60) if scheme == 'light' else (paper < 60 and ink > 200)
        text = page.find_element(By.CSS_SELECTOR, '.plot svg text').value_of_css_property('fill')
        assert sum(map(int, text[text.index('(') + 1:-1].split(',')[:3])) / 3 == ink
        assert page.save_screenshot(str(tmp_path / f'{scheme}.png'))
    click(page, page.find_element(By.ID, 'theme'))
    assert brightness(page)[0] > 200
    page.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})


def test_nothing_is_wider_than_a_phone(page):
    page.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
        'width': PHONE[0], 'height': PHONE[1], 'deviceScaleFactor': 2, 'mobile': True})
    try:
        assert page.execute_script('return document.documentElement.scrollWidth') <= PHONE[0]
        size = page.execute_script('return parseFloat(getComputedStyle(document.body).fontSize)')
        assert size >= 14
    finally:
        page.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_names_of_classes_images_and_files_stay_text(browser, evil):
    page = opened(browser, evil)
    assert page.title == '<b>dump.csv on validation'
    names = {row.get_attribute('data-value') for row in page.find_elements(
        By.CSS_SELECTOR, '#class-table tbody td:first-child')}
    assert names == set(EVIL_NAMES)
    assert {' '.join(row[0].split()) for row in rows(page)} == {
        ' '.join(name.split()) for name in EVIL_NAMES}
    images = page.find_elements(By.CSS_SELECTOR, '#images td:first-child')
    assert {image.get_attribute('textContent') for image in images} == set(EVIL_IMAGES)
    assert page.find_elements(By.CSS_SELECTOR, 'main script, main img, main b b') == []
    assert len(page.find_elements(By.TAG_NAME, 'script')) == 2
    for button in page.find_elements(By.CSS_SELECTOR, '#class-table .open'):
        click(page, button)
    assert page.find_elements(By.CSS_SELECTOR, '.detail script, .detail img') == []
    assert page.get_log('browser') == []
