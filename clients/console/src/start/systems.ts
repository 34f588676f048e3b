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
}

/** Whether others on the network could read what the agent sends to a panel at this URL. */
function isOpen(panel: string): boolean {
  const { protocol, hostname } = new URL(panel);
  return protocol === 'http:' && !/^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname);
}

/**
 * Returns a command that enrolls a machine and then runs its agent. A name that shells
 * would take apart is left out: the approval sets it.
 */
export function commandOf({ system, panel, name, tag, login }: Enrollment): string {
  const flags = ['--panel', panel];
  if (isOpen(panel)) flags.push('--insecure');
  if (/^\w[\w.-]*$/.test(name)) flags.push('--name', name);
  else if (/^\w[\w. -]*$/.test(name)) flags.push('--name', `'${name}'`);
  flags.push('--tag', tag);
  if (login && /^[\w.+@-]+$/.test(login)) flags.push('--user', login);
  const enroll = `enroll ${flags.join(' ')}`;
  switch (system) {
    case 'linux':
    case 'macos':
      return `eclitunnel ${enroll} && eclitunnel run`;
    case 'windows':
      // Windows' own PowerShell has no &&.
      return `eclitunnel ${enroll}; if ($?) { eclitunnel run }`;
    case 'docker': {
      // In the host's network the games of the machine are at 127.0.0.1.
      const run = '--network host -v eclitunnel:/var/lib/eclitunnel';
      return `docker run --rm -it ${run} eclitunnel ${enroll} && docker run -d --name eclitunnel --restart unless-stopped ${run} eclitunnel`;
    }
  }
}
