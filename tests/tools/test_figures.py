"""``--json FILE`` and ``--expand-hierarchy``: the same habit in every command."""

import json
import shutil
from pathlib import Path

import pytest

from projects.openimages.data.index import PreparedIndex
from projects.openimages.submissions.formats import Submission
from tests.helpers import REPOSITORY, assert_one_line_error, run_here

CLASSES = 'challenge-2019-classes-description-segmentable.csv'
# These only make something, or write what they found as JSON anyway.
WITHOUT_FIGURES = {'demo.py', 'make_demo_data.py', 'predict.py', 'train.py',
                   'browse_pipeline.py', 'plot_log.py', 'publish_model.py',
                   'setup_environment.py', 'precompiled_header_compiler.py'}
REPORTING = sorted({path.name for path in (REPOSITORY / 'tools').glob('*.py')} - WITHOUT_FIGURES)


def figures(tmp_path, *arguments, returncode=0) -> dict:
    out = tmp_path / 'new' / 'figures.json'
    result = run_here(*arguments, '--json', out)
    assert result.returncode == returncode, result.stderr
    return json.loads(out.read_text(encoding='utf-8'))


@pytest.mark.parametrize('tool', REPORTING)
def test_every_command_that_reports_has_it_and_docs_say_what_it_writes(tool):
    assert '--json FILE' in run_here(f'tools/{tool}', '--help').stdout
    page = (REPOSITORY / 'docs' / 'commands.md').read_text()
    assert f'| `tools/{tool}` |' in page


def test_prepare_gives_the_report_of_each_split(data_root, tmp_path):
    told = figures(tmp_path, 'tools/prepare_data.py', '--data-root', data_root, '--split',
                   'validation', '--workers', 1)
    report = json.loads((data_root / 'prepared/validation/report.json').read_text('utf-8'))
    assert told == {'splits': [{'folder': str(data_root / 'prepared/validation'), **report}]}


def test_check_gives_its_errors_too(dump, prepared, tmp_path):
    lines = dump.read_text().splitlines()
    broken = tmp_path / 'broken.csv'
    broken.write_text('\n'.join(lines[:-1]) + '\nx,4,3,\n')
    told = figures(tmp_path, 'tools/check_submission.py', broken, '--images',
                   prepared / 'index.arrow', '--workers', 1, returncode=2)
    assert (told['ok'], told['num_errors'], told['rows']) == (False, 2, len(lines) - 1)
    assert told['errors'][0] == {'row': len(lines), 'message': "unknown image 'x'"}
    assert '99,999' in told['warning']


def test_convert_and_merge_count(dump, prepared, tmp_path):
    with Submission(dump) as file:
        counts = [len(image.detections) for image in file]
    out = tmp_path / 'tf.csv'
    assert figures(tmp_path, 'tools/convert_submission.py', dump, out) == {
        'format': 'tf', 'images': len(counts), 'detections': sum(counts),
        'images_without_detections': counts.count(0), 'out': str(out)}
    told = figures(tmp_path, 'tools/merge_submissions.py', dump, dump, '--out', out, '--method',
                   'nms', '--no-expand-hierarchy', '--workers', 1)
    assert told['images'] == len(counts) and 0 < told['detections'] <= 2 * sum(counts)


def test_browse_names_pages_and_images(data_root, prepared, tmp_path):
    told = figures(tmp_path, 'tools/browse_dataset.py', '--data-root', data_root, '--out',
                   tmp_path / 'sheet.png', '--num', 3)
    index = PreparedIndex.open(prepared / 'index.arrow')
    assert told['pages'] == [str(tmp_path / 'sheet.png')] and told['outside'] == []
    assert len(told['images']) == 3 and set(told['images']) <= set(index.image_ids)


@pytest.mark.parametrize('tool', [
    ['check_submission.py', '{input}', '--images', '{index}'],
    ['convert_submission.py', '{input}', '{out}'],
    ['merge_submissions.py', '{input}', '{input}', '--out', '{out}', '--index', '{index}'],
    ['sweep.py', '{input}', '--index', '{index}', '--out', '{out}'],
    ['report.py', '{input}', '--prepared', '{folder}', '--out', '{out}'],
], ids=lambda words: words[0])
def test_figures_never_go_onto_an_input(tool, dump, prepared, tmp_path):
    copy = Path(shutil.copy(dump, tmp_path / 'copy.csv'))
    words = [word.format(input=copy, index=prepared / 'index.arrow', folder=prepared,
                         out=tmp_path / 'out') for word in tool]
    assert_one_line_error(run_here(f'tools/{words[0]}', *words[1:], '--json', copy),
                          'copy.csv: this is the input')
    assert copy.read_bytes() == dump.read_bytes()


@pytest.mark.parametrize(('tool', 'value', 'words'), [
    ('merge_submissions.py a.csv b.csv --out c.csv', 'x/index.arrow', 'with --index'),
    ('sweep.py a.csv --index b.arrow --out c', 'both', 'leave it out for both'),
    ('sweep.py a.csv --index b.arrow --out c', 'no', '--no-expand-hierarchy')])
def test_expansion_takes_no_value_any_more(tool, value, words):
    name, *arguments = tool.split()
    result = run_here(f'tools/{name}', *arguments, '--expand-hierarchy', value)
    assert_one_line_error(result, f'--expand-hierarchy {value}: it takes no value', words)


def test_merging_without_a_hierarchy_to_expand_by_is_one_line(dump, tmp_path):
    result = run_here('tools/merge_submissions.py', dump, dump, '--out', tmp_path / 'out.csv')
    assert_one_line_error(result, '--index index.arrow', '--no-expand-hierarchy')


def test_expansion_means_the_same_where_there_is_a_choice(dump, prepared, tmp_path):
    """One model merged with itself, or swept, gets larger by its detections' ancestors."""
    common = ['tools/merge_submissions.py', dump, '--out', tmp_path / 'out.csv', '--method',
              'soft-nms', '--score-thr', 0, '--workers', 1, '--index', prepared / 'index.arrow']
    merged = [figures(tmp_path, *common, *flag)['detections']
              for flag in ((), ('--expand-hierarchy',), ('--no-expand-hierarchy',))]
    sweep = ['tools/sweep.py', dump, '--index', prepared / 'index.arrow', '--out',
             tmp_path / 'sweep', '--score-thr', 0, '--max-per-img', 0, '--workers', 1]
    swept = [[point['detections'] for point in figures(tmp_path, *sweep, *flag)['points']]
             for flag in ((), ('--expand-hierarchy',), ('--no-expand-hierarchy',))]
    plain, expanded = swept[0]
    assert plain < expanded
    assert swept[1:] == [[expanded], [plain]]
    assert merged[0] == merged[1] > merged[2]


def test_every_help_describes_expansion_in_the_same_words():
    texts = [' '.join(run_here(f'tools/{tool}.py', '--help').stdout.split())
             for tool in ('test', 'sweep', 'merge_submissions')]
    for text in texts:
        assert ('--expand-hierarchy, --no-expand-hierarchy give each detection also for its '
                'ancestor classes, or not (') in text
