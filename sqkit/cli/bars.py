"""Commands for market data: ``sqkit data check``, ``import`` and ``fetch``."""

from __future__ import annotations

from pathlib import Path

from sqkit.cli.words import Interval, Json, Market, group, show

data = group("data", "Check, import and fetch bars.")


@data.command(name="check")
def data_check(
    path: str,
    /,
    *,
    symbol: str | None = None,
    interval: Interval | None = None,
    market: Market | None = None,
    json: Json = False,
) -> int:
    """Read bars in any known format and say what is wrong with them; exit 1 on errors.

    Parameters
    ----------
    path
        A file, a folder of files, or a URL.
    symbol
        The symbol, where the file does not name it.
    interval
        1d, 1m or 5m; by default guessed from the bars.
    market
        By default SENSEQUANT_MARKET.
    json
        Print the report as JSON.
    """
    from sqkit.research.marketdata import check_file, check_files
    from sqkit.settings import Settings

    settings = Settings()
    market_name, sessions_file = market or settings.market, settings.sessions_file
    if not Path(path).is_dir():
        report = check_file(path, interval, market_name, symbol, sessions_file)
        show(report.to_dict(), json, report.lines())
        return 0 if report.ok else 1
    reports = check_files(path, interval, market_name, sessions_file)
    lines = [line for report in reports for line in report.lines()]
    show({"files": [report.to_dict() for report in reports]}, json, lines)
    return 0 if all(report.ok for report in reports) else 1


@data.command(name="import")
def data_import(
    path: str,
    /,
    *,
    symbol: str,
    interval: Interval = "1d",
    market: Market | None = None,
) -> int:
    """Store bars as data/bars/<interval>/<SYMBOL>.parquet.

    Parameters
    ----------
    path
        A file or URL in any known format.
    symbol
        The symbol to store them under.
    interval
        1d, 1m or 5m.
    market
        By default SENSEQUANT_MARKET.
    """
    from sqkit.research.marketdata import import_bars
    from sqkit.settings import Settings

    settings = Settings()
    stored = import_bars(
        path,
        symbol=symbol,
        interval=interval,
        market=market or settings.market,
        data_dir=settings.data_dir,
        sessions_file=settings.sessions_file,
    )
    print("\n".join([*stored.report.lines(), f"stored {stored.path}"]))
    return 0


@data.command(name="fetch")
def data_fetch(
    symbol: str,
    /,
    *,
    interval: Interval = "1d",
    start: str = "",
    end: str = "",
    market: Market | None = None,
) -> int:
    """Fetch bars from Yahoo (needs pip install 'sqkit[yahoo]') and store them.

    Parameters
    ----------
    symbol
        Yahoo's name of the symbol.
    interval
        1d, 1m or 5m.
    start
        First session date.
    end
        Last session date, included.
    market
        By default told by the symbol's spelling (.NS and .BO are nse).
    """
    from sqkit.research.marketdata import fetch_and_store
    from sqkit.settings import Settings

    stored = fetch_and_store(
        symbol, interval=interval, start=start, end=end, market=market or "", data_dir=Settings().data_dir
    )
    print("\n".join([*stored.report.lines(), f"stored {stored.path}"]))
    return 0
