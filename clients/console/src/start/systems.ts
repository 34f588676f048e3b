/** The systems for which the page has a command, in its order. */
export const systems = ['linux', 'windows', 'macos', 'docker'] as const;
export type System = (typeof systems)[number];

/** The system that the browser runs on, if the agent runs there, or else Linux. */
export function likelySystem(): System {
  const { userAgentData } = navigator as Navigator & { userAgentData?: { platform?: string } };
  const platform = userAgentData?.platform || navigator.platform || navigator.userAgent;
  if (/win/i.test(platform)) return 'windows';
  return /mac/i.test(platform) ? 'macos' : 'linux';
}

/** What `make build-all` calls the agent for a system on its most common processor. */
export const programs = {
  linux: 'dist/eclitunnel-linux-amd64',
  windows: 'dist/eclitunnel-windows-amd64.exe',
  macos: 'dist/eclitunnel-darwin-arm64',
} as const;

/** Builds the agent's image from the sources. */
export const buildImage = 'docker build -f deploy/Dockerfile --target eclitunnel -t eclitunnel .';

export interface Enrollment {
  system: System;
  /** The URL of the panel. */
  panel: string;
  /** What the person calls the machine; empty for its host name. */
  name: string;
  /** By which the page finds the machine. */
  tag: string;
  /** Who logs in to enroll, by email; undefined for nobody. */
  login: string | undefined;
  /** Whether the command fetches the agent from the panel and has it run as a service. */
  install: boolean;
}

/** Where the panel has the script that installs the agent on a system. */
export const scripts = { linux: '/install', windows: '/install.ps1', macos: '/install' } as const;

/** Whether others on the network could read what the agent sends to a panel at this URL. */
function isOpen(panel: string): boolean {
  const { protocol, hostname } = new URL(panel);
  return protocol === 'http:' && !/^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname);
}

/** The flags of enroll but for the panel. A name that shells would take apart is left out: the approval sets it. */
function flagsOf({ panel, name, tag, login }: Enrollment): string[] {
  const flags: string[] = [];
  if (isOpen(panel)) flags.push('--insecure');
  if (/^\w[\w.-]*$/.test(name)) flags.push('--name', name);
  else if (/^\w[\w. -]*$/.test(name)) flags.push('--name', `'${name}'`);
  flags.push('--tag', tag);
  if (login && /^[\w.+@-]+$/.test(login)) flags.push('--user', login);
  return flags;
}

/** Returns a command that enrolls a machine and then has its agent run. */
export function commandOf(enrollment: Enrollment): string {
  const { system, panel, tag, install } = enrollment;
  const flags = flagsOf(enrollment);
  const enroll = `enroll --panel ${panel} ${flags.join(' ')}`;
  switch (system) {
    case 'linux':
    case 'macos':
      return install ? `curl -fsSL ${panel}${scripts[system]} | sh -s -- ${flags.join(' ')}` : `eclitunnel ${enroll} && eclitunnel run`;
    case 'windows':
      if (install) {
        const script = `irm ${panel}${scripts.windows}`;
        return flags.length === 2 ? `$env:ECLITUNNEL_TAG = '${tag}'; ${script} | iex` : `& ([scriptblock]::Create((${script}))) ${flags.join(' ')}`;
      }
      // Windows' own PowerShell has no &&.
      return `eclitunnel ${enroll}; if ($?) { eclitunnel run }`;
    case 'docker': {
      // In the host's network the games of the machine are at 127.0.0.1.
      const run = '--network host -v eclitunnel:/var/lib/eclitunnel';
      return `docker run --rm -it ${run} eclitunnel ${enroll} && docker run -d --name eclitunnel --restart unless-stopped ${run} eclitunnel`;
    }
  }
}
