import { call, Problem } from './api.js';

export const byId = (id) => document.getElementById(id);

const noEcliPanelSession =
  'Your browser sends no valid session of EcliPanel to this page. If you are logged in there, this page is at another address than EcliPanel: ask the operator of this panel how to log in.';

/** Shows a failure, or none. */
export function showProblem(problem) {
  byId('problem').textContent = problem?.message ?? '';
  byId('problem').hidden = !problem;
}

/**
 * A page on which people log in. The steps are ids of its parts, of which one is shown at a
 * time; `login` is one of them. `welcome(user)` goes on with somebody who has logged in.
 * `address()` is where an identity provider sends people back to, and `leave()` is called
 * before they go there.
 */
export class Page {
  constructor({ steps, welcome, address, leave = () => {} }) {
    Object.assign(this, { steps: ['login', ...steps].map(byId), welcome, address, leave });
    this.onSubmit('credentials', async () => {
      const password = byId('password');
      const { user } = await call('POST', '/api/auth/login', { email: byId('email').value, password: password.value });
      password.value = '';
      this.welcome(user);
    });
    this.onClick('eclipanel-done', async () => {
      const { user } = await call('GET', '/api/auth/session', null, { unauthorized: noEcliPanelSession });
      this.welcome(user);
    });
    this.onClick('logout', async () => {
      await call('POST', '/api/auth/logout');
      await this.askToLogIn();
    });
  }

  /** Shows one step, or none, and moves the focus to an element in it. */
  show(step, focus) {
    byId('busy').hidden = true;
    for (const s of this.steps) s.hidden = s !== step;
    byId('account').hidden = !step || step === byId('login');
    focus?.focus();
  }

  /** Goes on with the user who is logged in, or shows the ways to log in. */
  async start() {
    try {
      const { user } = await call('GET', '/api/auth/session');
      this.welcome(user);
    } catch (error) {
      await this.askToLogIn();
      if (error.code !== 'unauthorized') throw error;
    }
  }

  /** Shows the ways to log in: a link for each identity provider, EcliPanel, and the form of local accounts. */
  async askToLogIn() {
    const { localAccounts, providers, eclipanelUrl } = await call('GET', '/api/auth/providers');
    byId('providers').replaceChildren(...providers.map(({ name, loginUrl }) => {
      const link = document.createElement('a');
      link.href = `${loginUrl}?${new URLSearchParams({ returnTo: this.address() })}`;
      link.textContent = `Log in with ${name}`;
      link.addEventListener('click', this.leave);
      const item = document.createElement('li');
      item.append(link);
      return item;
    }));
    byId('providers').hidden = providers.length === 0;
    if (eclipanelUrl) byId('eclipanel-link').href = eclipanelUrl;
    byId('eclipanel').hidden = !eclipanelUrl;
    byId('credentials').hidden = !localAccounts;
    this.show(byId('login'), localAccounts ? byId('email') : byId('providers').querySelector('a') ?? byId('eclipanel-link'));
  }

  /** Runs an action with its button disabled, and shows a failure. */
  async attempt(element, action) {
    const button = element.querySelector('button') ?? element;
    if (button.disabled) return;
    button.disabled = true;
    showProblem(null);
    try {
      await action();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      await this.explain(error, element);
    } finally {
      button.disabled = false;
    }
  }

  /** Shows a failure, beside the ways to log in if the session has ended. */
  async explain(problem, element) {
    try {
      if (problem.code === 'unauthorized' && !byId('login').contains(element)) await this.askToLogIn();
    } catch (other) {
      if (!(other instanceof Problem)) throw other;
    }
    showProblem(problem);
  }

  onSubmit(id, action) {
    byId(id).addEventListener('submit', (event) => {
      event.preventDefault();
      this.attempt(byId(id), action);
    });
  }

  onClick(id, action) {
    byId(id).addEventListener('click', () => this.attempt(byId(id), action));
  }
}

/** Runs an action outside of a Page's steps, and shows a failure. */
export async function begin(action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    const busy = byId('busy');
    if (busy) busy.hidden = true;
    showProblem(error);
  }
}

/**
 * Returns the secret after the # of the page's address, and takes it out of the address bar
 * and the history: it works once, but until then it is a secret.
 */
export function takeFragment() {
  const fragment = location.hash.slice(1);
  // A second link in the same tab changes the fragment alone.
  addEventListener('hashchange', () => location.reload());
  history.replaceState(null, '', location.pathname);
  return fragment;
}

export const wholeLink = 'This page needs the whole link that you were given, with what follows the #.';
