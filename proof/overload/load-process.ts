import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { load } from './load.ts'
import type { Answered, Plan } from './load.ts'

/** The load in a process of its own, so that making it takes nothing from who makes the bank. */
export async function loadElsewhere(plan: Plan): Promise<Answered[]> {
  const child = fork(fileURLToPath(import.meta.url), { serialization: 'advanced' })
  try {
    return await new Promise<Answered[]>((resolve, reject) => {
      child.on('message', (answers) => resolve(answers as Answered[]))
      child.on('exit', (code) => reject(new Error(`the load ended with ${code}`)))
      child.send(plan)
    })
  } finally {
    child.kill()
  }
}

if (process.send !== undefined && process.argv[1] === fileURLToPath(import.meta.url)) {
  process.once('message', (plan) => {
    void load(plan as Plan).then((answers) => process.send?.(answers))
  })
}
