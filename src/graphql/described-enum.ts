import { builder } from './builder.ts'

/** An enum whose every value has a description: one that is added without does not compile. */
export function describedEnum<Value extends string>(
  name: string,
  description: string,
  descriptions: Record<Value, string>,
) {
  const values = Object.entries<string>(descriptions).map(([value, description]) => [
    value,
    { value: value as Value, description },
  ])
  return builder.enumType(name, {
    description,
    values: Object.fromEntries(values) as Record<Value, { value: Value }>,
  })
}
