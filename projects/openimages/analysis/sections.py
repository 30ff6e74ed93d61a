"""The sections of the report's page, each from the part of ``report.json`` that it shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from projects.openimages.analysis.html import Html, element, join

_SHOWN = 50
_COLUMNS = (  # heading, key, explanation
    ('AP', 'AP', 'average precision at IoU 0.5'),
    ('to find', 'positives', 'instances with a mask, those of classes below included'),
    ('true', 'true', 'true positives'), ('false', 'false', 'false positives'),
    ('ignored', 'ignored', 'taken by boxes without mask: neither true nor false'),
    ('dropped', 'dropped', 'in images where the class is not verified, or empty'),
    ('train images', 'train images', 'training images in which the class has an instance'))

Figures = Callable[[str], Html]


def number(value: float | None) -> str:
    """Four digits, or a dash where there is no number."""
    return '–' if value is None else f'{value:.4f}'


def signed(value: float | None) -> str:
    return '–' if value is None else f'{value:+.4f}'


def interval(value: Mapping[str, float | None]) -> str:
    """``0.1234 to 0.5678``; a dash where there is none."""
    return '–' if value['low'] is None else f'{number(value["low"])} to {number(value["high"])}'


def exact(value: float | None, **attributes: object) -> Html:
    """A cell with four digits of a number; all of them are in ``data-value`` and in its title."""
    told = '' if value is None else repr(value)
    return element('td', number(value), class_='number', data_value=told, title=told or None,
                   **attributes)


def count(value: int | None) -> Html:
    return element('td', '–' if value is None else f'{value:,}', class_='number',
                   data_value='' if value is None else value)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], **attributes: object) -> Html:
    """A table; cells that are no HTML become text."""
    cells = [element('tr', *(cell if isinstance(cell, Html) and cell.startswith('<td')
                             else element('td', cell) for cell in row)) for row in rows]
    return element('div', element('table', element('thead', element('tr', *(
        element('th', head, scope='col') for head in heads))), element('tbody', *cells),
        **attributes), class_='scroll')


def section(name: str, title: str, *children: object) -> Html:
    return element('section', element('h2', title), *children, id=name)


def note(*children: object) -> Html:
    return element('p', *children, class_='note')


def figures(pictures: Sequence[tuple[str, Sequence[str]]]) -> Html:
    """Captions with their pictures, given as addresses; nothing where there are none."""
    if not pictures:
        return Html()
    return element('div', *(element('figure', *(
        element('img', src=address, alt=caption) for address in addresses),
        element('figcaption', caption if addresses else f'{caption} (no image file)'))
        for caption, addresses in pictures), class_='pictures')


def body(report: Mapping[str, Any], plots: Mapping[str, Html], pictures: Figures) -> Html:
    """All sections in order, below a row of links to them."""
    names = [one['name'] for one in report['classes']]
    parts = {
        'overview': ('Overview', overview(report)),
        'comparison': ('Comparison', comparison(report, names, plots, pictures)),
        'errors': ('Errors', errors(report, plots)),
        'classes': ('Classes', join((class_table(report), element('h3', 'The worst'),
                                     element('div', plots['classes'], class_='plot wide'),
                                     pictures('classes')))),
        'hierarchy': ('Hierarchy', hierarchy(report)),
        'confusion': ('Confusion', confusion(report, names, pictures)),
        'curves': ('Curves', curves(plots)),
        'images': ('Images', images(report, pictures)),
        'labels': ('Labels to check', suspects(report, pictures))}
    shown = {name: part for name, part in parts.items() if part[1]}
    links = element('nav', *(element('a', title, href=f'#{name}')
                             for name, (title, _) in shown.items()))
    return join([links, *(section(name, *part) for name, part in shown.items())])


def overview(report: Mapping[str, Any]) -> Html:
    told = report['headline']
    inputs = [(name, value) for name, value in report['inputs'].items() if value is not None]
    cards = [('mAP', told['mAP'], f'95%: {interval(told["mAP_interval"])}'),
             *((name.replace('mAP_', ''), told[name], '') for name in told
               if name.startswith('mAP_') and name not in ('mAP_interval', 'mAP_50_95')),
             ('IoU 0.5 to 0.95', told['mAP_50_95'], 'mean of ten thresholds'),
             *((f'{name} objects', size['mAP'], f'{size["positives"]:,} to find')
               for name, size in told['sizes'].items())]
    ours = [(element('b', 'this dump'), report['inputs']['split'], exact(told['mAP'], id='map'))]
    theirs = [(one['name'], 'challenge test (theirs)', exact(one['mAP']))
              for one in report['published']]
    return join((
        element('div', *(element('div', element('b', title), element(
            'span', number(value), class_='value', title='' if value is None else repr(value)),
            element('small', more)) for title, value, more in cards), class_='cards'),
        note(f'{told["images"]:,} images, {told["detections"]:,} detections, '
             f'{told["positives"]:,} instances to find (ancestors included) of '
             f'{told["classes"]:,} classes. The mAP is the challenge’s, as tools/evaluate.py '
             'computes it: point at a number for all its digits. Small is below 32² pixels, large '
             'from 96².'),
        element('details', element('summary', 'Beside others’ published results'),
                note('Theirs are of the challenge’s test images, as they published them. This dump '
                     'was scored on other images: compare orders of magnitude only.'),
                table(('', 'scored on', 'mAP'), [*ours, *theirs]), open=''),
        element('details', element('summary', 'What was read'),
                table(('', ''), inputs))))


def errors(report: Mapping[str, Any], plots: Mapping[str, Html]) -> Html:
    told = report['headline']
    total = max(told['detections'], 1)
    return join((
        note('Each kind is put right alone and everything scored again, as TIDE does: the costs do '
             'not add up. A wrong class is one on an instance of another class that is verified in '
             'the image; a poor mask has IoU 0.1 to 0.5.'),
        element('div', element('div', plots['errors'], class_='plot'),
                table(('kind', 'how many', 'mAP it costs'), [
                    (one['name'], count(one['count']), exact(one['cost']))
                    for one in report['errors']], id='error-table'), class_='pair'),
        element('h3', 'What became of the detections'),
        element('div', plots['outcomes'], class_='plot wide'),
        element('details', element('summary', 'As a table'), table(
            ('', 'detections', 'share'),
            [(name, count(value), element('td', f'{value / total:.2%}', class_='number'))
             for name, value in report['outcomes'].items()], id='outcome-table')),
        note(f'At most {told["most_detections_an_image"]} detections in an image, before expansion '
             f'over the hierarchy; so many have {told["images_with_the_most"]:,} of '
             f'{told["images"]:,} images. If that is the cap of the dump, it cut more there.')))


def class_table(report: Mapping[str, Any]) -> Html:
    shown = [one for one in report['classes']
             if one['AP'] is not None or one['true'] + one['false'] + one['dropped']]
    columns = [column for column in _COLUMNS if shown and column[1] in shown[0]]
    heads = [element('th', element('button', head, type='button', title=why), scope='col')
             for head, _, why in (('class', '', 'name'), *columns)]
    rows = [element('tr', element('td', element('button', one['name'], type='button', title=one[
        'mid'], class_='open', aria_expanded='false'), data_value=one['name']),
        *(exact(one[key]) if key == 'AP' else count(one[key]) for _, key, _ in columns),
        id=f'class-{one["class_id"]}', data_class=one['class_id'], data_mid=one['mid'])
        for one in shown]
    return join((
        element('p', element('input', type='search', id='search', placeholder='search a class',
                             aria_label='search a class'), ' ',
                element('span', f'{len(rows)} classes', id='shown', aria_live='polite')),
        element('div', element('table', element('thead', element('tr', *heads)), element(
            'tbody', *rows), id='class-table'), class_='scroll'),
        note('A click on a heading sorts, one on a class shows its precision and recall and what '
             'its errors cost.')))


def hierarchy(report: Mapping[str, Any]) -> Html:
    """The classes as a tree; one with two parents is below both."""
    classes = {one['class_id']: one for one in report['classes']}
    children: dict[int | None, list[int]] = {}
    for class_id, one in classes.items():
        for parent in one['parents'] or [None]:
            children.setdefault(parent, []).append(class_id)

    def node(class_id: int) -> Html:
        """The class and what is below it; nothing where there is nothing to find."""
        one = classes[class_id]
        below = join(map(node, children.get(class_id, [])))
        if one['AP'] is None and not below:
            return Html()
        line = (element('a', one['name'], href=f'#class-{class_id}'), ' ',
                element('meter', value=one['AP'] or 0, min=0, max=1), ' ',
                element('span', number(one['AP']), class_='value'))
        if not below:
            return element('li', element('span', *line, class_='line'))
        return element('li', element('details', element('summary', *line), element('ul', below),
                                     open=''))

    roots = sorted(children.get(None, []), key=lambda c: (c not in children, c))
    unknown = sum(one['AP'] is None for one in classes.values())
    return join((element('p', element('button', 'open all', type='button', id='open-all'), ' ',
                         element('button', 'close all', type='button', id='close-all')),
                 element('ul', *map(node, roots), class_='tree'),
                 note(f'{unknown} classes without instances to find are left out.')
                 if unknown else Html()))


def confusion(report: Mapping[str, Any], names: Sequence[str], pictures: Figures) -> Html:
    classes, counts = (report['confusion_matrix'][key] for key in ('classes', 'counts'))
    pairs = report['confusions'][:_SHOWN]
    if not pairs:
        return note('No detection lies on an instance of another class.')
    rows = []
    for actual, row in zip(classes, counts, strict=True):
        total = max(sum(row), 1)
        rows.append([names[actual], *(element(
            'td', value or '', class_='heat', style=f'--share:{value / total:.3f}')
            for value in row)])
    threshold = report['inputs']['score_thr']
    return join((
        note('Only where both classes are verified in the image. Rows are what it is, columns what '
             f'it is taken for, by detections with a score of at least {threshold:g}; on the '
             'diagonal the true positives.'),
        table(['', *(names[c] for c in classes)], rows, class_='matrix') if rows else Html(),
        pictures('confusions'),
        element('details', element('summary', f'The first {len(pairs)} pairs'), table(
            ('is', 'taken for', 'relation', f'score ≥ {threshold:g}', 'all', 'mean score'),
            [(names[one['actual']], names[one['predicted']],
              one['relation'].removeprefix('wrong class: '), count(one['confident']),
              count(one['count']), exact(one['mean_score'])) for one in pairs]), open='')))


def curves(plots: Mapping[str, Html]) -> Html:
    titles = {'iou': 'mAP against IoU', 'thresholds': 'mAP against the score threshold',
              'caps': 'mAP against the cap', 'calibration': 'Calibration',
              'scores': 'Scores by outcome'}
    return element('div', *(element('figure', element('figcaption', title),
                                    element('div', plots[name], class_='plot'))
                            for name, title in titles.items()), class_='grid')


def images(report: Mapping[str, Any], pictures: Figures) -> Html:
    told = report['worst_images'][:_SHOWN]
    threshold = report['inputs']['score_thr']
    return join((
        note('The images with the most errors: instances that nothing has found, and false '
             f'detections with a score of at least {threshold:g}. In the pictures both are '
             'framed.'),
        pictures('worst'),
        element('details', element('summary', f'The first {len(told)}'), table(
            ('image', 'not found', 'false'),
            [(one['image_id'], count(one['missed']), count(one['false'])) for one in told]))))


def suspects(report: Mapping[str, Any], pictures: Figures) -> Html:
    told = report['suspects']
    return join((
        note(f'{len(told)} confident detections that the ground truth has no match for, which may '
             'be labels that are missing or wrong. All of them, for an annotator, are in ',
             element('a', 'suspects.csv', href='suspects.csv'), '.'),
        pictures('suspects'),
        element('details', element('summary', f'The first {min(len(told), _SHOWN)}'), table(
            ('image', 'class', 'score', 'why'),
            [(one['ImageID'], one['Name'], exact(one['Score']), one['Reason'])
             for one in told[:_SHOWN]]))))


def comparison(report: Mapping[str, Any], names: Sequence[str], plots: Mapping[str, Html],
               pictures: Figures) -> Html:
    """This dump beside the other; nothing where there is none."""
    told = report['comparison']
    if told is None:
        return Html()
    inputs = report['inputs']
    low, high = told['interval']['low'], told['interval']['high']
    verdict = 'the interval holds 0: this may be chance'
    if low is not None and (low > 0 or high < 0):
        verdict = 'better than chance explains' if low > 0 else 'worse than chance explains'
    return join((
        element('p', f'{os.path.basename(inputs["predictions"])} has mAP {number(told["mAP"])}, '
                f'{os.path.basename(inputs["compare"])} {number(told["other_mAP"])}. Difference ',
                element('b', signed(told['difference']), id='difference'),
                f', 95% interval {signed(low)} to {signed(high)}: {verdict}.'),
        note('Paired bootstrap over the images: both dumps are scored on the same thousand draws. '
             'Among many classes a few intervals miss 0 by chance alone.'),
        element('div', plots['comparison'], class_='plot'),
        element('details', element('summary', 'All classes'), table(
            ('class', 'AP', 'other', 'difference', '95% interval'),
            [(names[one['class_id']], exact(one['ap']), exact(one['other_ap']),
              element('td', signed(one['difference']), class_='number'),
              interval(one['interval'])) for one in told['classes']], id='difference-table')),
        element('h3', 'Images that got better'), pictures('better') or note('None drawn.'),
        element('h3', 'Images that got worse'), pictures('worse') or note('None drawn.')))
