# Installs the EcliTunnel agent from the panel that serves this script, enrolls this machine
# there, and has the agent run as a service. In PowerShell 5.1 or newer:
#
#   $env:ECLITUNNEL_TAG = 'TAG'; irm @PANEL@/install.ps1 | iex
#
# Flags of eclitunnel enroll follow the script, or are in ECLITUNNEL_ENROLL_FLAGS with
# spaces between them:
#
#   & ([scriptblock]::Create((irm @PANEL@/install.ps1))) --name home-server
#
# As an administrator it installs for the machine, otherwise for you. On a machine that is
# enrolled it replaces the program alone. Nothing is fetched from elsewhere. These variables
# change it:
#
#   ECLITUNNEL_INSTALL_DIR  where the program goes: %ProgramFiles%\EcliTunnel, or
#                           %LOCALAPPDATA%\Programs\EcliTunnel for you
#   ECLITUNNEL_NO_SERVICE   if it is 1, no service is installed
#
# A block of its own, whose functions and settings end with it. Never exit: that would close
# the terminal.
& {
    Set-StrictMode -Version 2
    $ErrorActionPreference = 'Stop'
    # Windows PowerShell draws its progress so slowly that downloads wait for it.
    $ProgressPreference = 'SilentlyContinue'
    $panel = '@PANEL@'

    function Get-Platform {
        $machine = $env:PROCESSOR_ARCHITECTURE
        # A 32-bit PowerShell on a 64-bit Windows.
        if ($env:PROCESSOR_ARCHITEW6432) { $machine = $env:PROCESSOR_ARCHITEW6432 }
        switch ($machine) {
            'AMD64' { return 'windows_amd64' }
            'ARM64' { return 'windows_arm64' }
            default { throw "install: there is no agent for the processor $machine on Windows." }
        }
    }

    # Downloads a file of the panel into the working directory.
    function Get-PanelFile([string] $name) {
        try {
            Invoke-WebRequest -UseBasicParsing -Uri "$panel/install/$name" -OutFile (Join-Path $work $name)
        } catch {
            throw "install: $panel/install/$name cannot be downloaded: $($_.Exception.Message) Try again, and if it stays, ask who runs the panel."
        }
    }

    # Leaves the checked program in the working directory.
    function Get-Program {
        $target = Get-Platform
        Get-PanelFile 'SHA256SUMS'
        $listed = @(Get-Content (Join-Path $work 'SHA256SUMS') | Where-Object { $_ -match "^([0-9a-f]{64})  (eclitunnel_\S+_$target\.zip)$" })
        if ($listed.Count -eq 0) { throw "install: this panel has no agent for $target; ask who runs it, at $panel." }
        $sum, $archive = $listed[0] -split '  ', 2
        Write-Host "Downloading $archive from $panel"
        Get-PanelFile $archive
        $file = Join-Path $work $archive
        if ((Get-FileHash -Algorithm SHA256 -LiteralPath $file).Hash -ne $sum) {
            throw "install: the checksum of $archive is wrong, so it is not installed. Try again, and if it stays, tell who runs the panel."
        }
        Expand-Archive -LiteralPath $file -DestinationPath $work -Force
    }

    # Runs the agent and returns its exit code. What it prints is for the person. A program
    # that writes to the standard error is no reason for PowerShell to stop.
    function Invoke-Agent([string] $file, [string[]] $arguments, [switch] $Quiet) {
        $ErrorActionPreference = 'Continue'
        if ($Quiet) { & $file @arguments *> $null } else { & $file @arguments | Out-Host }
        return $LASTEXITCODE
    }

    # Puts the program where the shell finds it, also over one that runs, which Windows lets
    # one rename but not overwrite.
    function Install-Program {
        New-Item -ItemType Directory -Force -Path $dir | Out-Null
        $old = "$program.old"
        $staged = "$program.new"
        Copy-Item -Force -LiteralPath (Join-Path $work 'eclitunnel.exe') -Destination $staged
        try {
            if ((Invoke-Agent $staged @('version')) -ne 0) { throw 'install: the agent does not run on this machine, so it is not installed.' }
            if (Test-Path -LiteralPath $old) { Remove-Item -Force -LiteralPath $old -ErrorAction SilentlyContinue }
            if (Test-Path -LiteralPath $old) { throw "install: $old is in use: end the agent that runs from it, and try again." }
            if (Test-Path -LiteralPath $program) { Move-Item -LiteralPath $program -Destination $old }
            try {
                Move-Item -LiteralPath $staged -Destination $program
            } catch {
                if (Test-Path -LiteralPath $old) { Move-Item -LiteralPath $old -Destination $program }
                throw "install: $program cannot be replaced: $($_.Exception.Message)"
            }
        } finally {
            Remove-Item -Force -LiteralPath $staged, $old -ErrorAction SilentlyContinue
        }
        Write-Host "Installed $program"
    }

    # Adds the program's directory to the path of new terminals, and of this one.
    function Add-ToPath {
        if ($admin) {
            $hive, $at, $scope = [Microsoft.Win32.Registry]::LocalMachine, 'SYSTEM\CurrentControlSet\Control\Session Manager\Environment', 'Machine'
        } else {
            $hive, $at, $scope = [Microsoft.Win32.Registry]::CurrentUser, 'Environment', 'User'
        }
        # Not by [Environment], which would write variables in the path as their values.
        $key = $hive.OpenSubKey($at, $true)
        $path = [string] $key.GetValue('Path', '', 'DoNotExpandEnvironmentNames')
        if (($path -split ';') -notcontains $dir) {
            $key.SetValue('Path', (@($path.TrimEnd(';'), $dir) -ne '' -join ';'), 'ExpandString')
            # Programs that run are told of it when a variable is set this way.
            [Environment]::SetEnvironmentVariable('ECLITUNNEL_INSTALLED', $null, $scope)
        }
        $key.Close()
        if (($env:Path -split ';') -notcontains $dir) { $env:Path = "$env:Path;$dir" }
    }

    # Has the agent run now and after each start of the machine.
    function Start-Agent {
        $scope = @(if (-not $admin) { '--user' })
        if ($env:ECLITUNNEL_NO_SERVICE -eq '1') {
            Write-Host "Keep the agent running with: eclitunnel run"
            return
        }
        if ((Invoke-Agent $program @('service', '--help') -Quiet) -eq 0 -and (Invoke-Agent $program (@('service', 'install') + $scope)) -eq 0) {
            # A service that runs has the old program.
            Invoke-Agent $program (@('service', 'stop') + $scope) -Quiet | Out-Null
            if ((Invoke-Agent $program (@('service', 'start') + $scope)) -eq 0) {
                Write-Host 'The agent runs as a service, now and after each start. It is shown by: eclitunnel status'
                return
            }
        }
        Write-Host 'The agent is not a service of this machine. Keep it running yourself, with: eclitunnel run'
    }

    # The flags of eclitunnel enroll.
    $flags = @($args)
    if ($env:ECLITUNNEL_ENROLL_FLAGS) { $flags += @($env:ECLITUNNEL_ENROLL_FLAGS -split '\s+' -ne '') }
    if ($env:ECLITUNNEL_TAG) { $flags += @('--tag', $env:ECLITUNNEL_TAG) }

    $identity = [Security.Principal.WindowsPrincipal] [Security.Principal.WindowsIdentity]::GetCurrent()
    $admin = $identity.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
    $dir = if ($env:ECLITUNNEL_INSTALL_DIR) { $env:ECLITUNNEL_INSTALL_DIR }
    elseif ($admin) { Join-Path $env:ProgramFiles 'EcliTunnel' }
    else { Join-Path $env:LOCALAPPDATA 'Programs\EcliTunnel' }
    $program = Join-Path $dir 'eclitunnel.exe'

    # Older Windows PowerShell offers TLS 1.2 only if told to.
    [Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12

    $work = Join-Path ([IO.Path]::GetTempPath()) ('eclitunnel-' + [Guid]::NewGuid())
    New-Item -ItemType Directory -Path $work | Out-Null
    try {
        Get-Program
        Install-Program
        Add-ToPath
        $again = $flags -contains '--force' -or $flags -contains '--renew'
        # 6 is the exit code of a machine that is not enrolled.
        if (-not $again -and (Invoke-Agent $program @('status') -Quiet) -ne 6) {
            Write-Host 'This machine is enrolled already and stays so. To enroll it anew, add --force.'
        } elseif ((Invoke-Agent $program (@('enroll', '--panel', $panel) + $flags)) -ne 0) {
            throw "install: this machine is not enrolled; the lines above say why. The program stays, so you can go on with: eclitunnel enroll --panel $panel"
        }
        # It is of one enrollment.
        Remove-Item Env:\ECLITUNNEL_TAG -ErrorAction SilentlyContinue
        Start-Agent
    } finally {
        Remove-Item -Recurse -Force -LiteralPath $work -ErrorAction SilentlyContinue
    }
} @args
