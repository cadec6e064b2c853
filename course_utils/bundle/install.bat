@echo off
rem Finds a Python that fits and leaves the rest to install.py: install.bat [FOLDER]
py -@PYTHON@ -c "" >nul 2>nul
if not errorlevel 1 (
  py -@PYTHON@ "%~dp0install.py" %*
  exit /b
)
python -c "" >nul 2>nul
if not errorlevel 1 (
  python "%~dp0install.py" %*
  exit /b
)
echo There is no Python here. Install Python @PYTHON@ and run this again.
exit /b 2
